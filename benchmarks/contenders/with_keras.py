"""Runs Keras on JAX."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
from jax import numpy as jnp
from keras import layers

from benchmarks.cases import Case, LayerCase, TrainCase
from benchmarks.contenders import Absent, Arrays, Settings, Work, jax_work
from benchmarks.contenders.jax_work import sequence_work, step_work


def versions(settings: Settings) -> dict[str, Any]:
    if keras.backend.backend() != "jax":
        raise Absent(f"Keras runs on {keras.backend.backend()} here, and is measured on JAX; KERAS_BACKEND=jax")
    return {"keras": keras.__version__} | jax_work.versions(settings)


def why_not(case: Case, settings: Settings) -> str | None:
    if isinstance(case, TrainCase):
        if case.experiment not in MODELS:
            return "no Keras model is written for it here"
        others = [override for override in case.overrides if not override.startswith("data.")]
        return f"the Keras model that is written for it here does not know {', '.join(others)}" if others else None
    assert isinstance(case, LayerCase)
    return jax_work.why_not(case, "Keras")


def prepare(case: Case, arrays: Arrays, settings: Settings) -> Work:
    if isinstance(case, TrainCase):
        return prepare_training(case, arrays, settings)
    assert isinstance(case, LayerCase)
    weights = [weight for suffix, _ in case.sizes() for weight in _to_keras(case, arrays, suffix)]
    if case.mode == "step":
        return _step(case, arrays, weights)
    model = keras.Sequential([layers.Input((case.T, case.I)), *(_layer(case) for _ in range(case.layers))])
    fixed = [variable.value for variable in model.non_trainable_variables]
    mask = np.arange(case.T) < arrays["lengths"][:, None] if case.ragged else None

    def forward(weights: list[jax.Array], x: jax.Array, mask: jax.Array | None) -> jax.Array:
        return model.stateless_call(weights, fixed, x, mask=mask, training=case.mode == "train")[0]

    def to_torch(grads: list[np.ndarray]) -> Arrays:
        found: Arrays = {}
        for k, (suffix, _) in enumerate(case.sizes()):
            found |= _to_torch(case, grads[3 * k : 3 * k + 3], suffix)
        return found

    return sequence_work(case, arrays, forward, weights, mask, to_torch, batch_first=True)


def _layer(case: LayerCase) -> layers.Layer:
    options: dict[str, Any] = {
        "return_sequences": True,
        "zero_output_for_mask": True,
        "recurrent_initializer": "zeros",  # not the default, which JAX cannot compute in half precision
        "dtype": _dtype(case),
    }
    if case.cell == "lstm":
        layer = layers.LSTM(case.H, **options)
    elif case.cell == "gru":
        layer = layers.GRU(case.H, reset_after=True, **options)
    else:
        layer = layers.SimpleRNN(case.H, case.cell.removeprefix("rnn_"), **options)
    return layers.Bidirectional(layer, dtype=_dtype(case)) if case.bidirectional else layer


def _step(case: LayerCase, arrays: Arrays, weights: list[np.ndarray]) -> Work:
    cell = _layer(case).cell
    cell.build((case.B, case.I))
    fixed = [variable.value for variable in cell.non_trainable_variables]

    def step(weights: list[jax.Array], state: list[jax.Array], x: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        (y, state), _ = cell.stateless_call(weights, fixed, x, state)
        return state, y

    return step_work(case, arrays, step, weights, [arrays[name] for name in ("h", "c") if name in arrays])


def _dtype(case: LayerCase) -> str:
    return jnp.dtype(jax_work.DTYPES[case.dtype]).name


def _turned(case: LayerCase, array: np.ndarray) -> np.ndarray:
    """Convert rows from `torch.nn`'s order of gates to that of Keras, or back: r and z of the GRU are swapped."""
    if case.cell != "gru":
        return array
    first, second, third = np.split(array, 3)
    return np.concatenate([second, first, third])


def _to_keras(case: LayerCase, arrays: Arrays, suffix: str) -> list[np.ndarray]:
    """Return a direction's kernel, recurrent kernel and bias. The GRU has both biases, as rows; others their sum."""
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    kernel, recurrent, bias_ih, bias_hh = (_turned(case, arrays[f"{kind}_{suffix}"]) for kind in kinds)
    return [kernel.T, recurrent.T, np.stack([bias_ih, bias_hh]) if case.cell == "gru" else bias_ih + bias_hh]


def _to_torch(case: LayerCase, grads: list[np.ndarray], suffix: str) -> Arrays:
    kernel, recurrent, bias = grads
    found = {"weight_ih": kernel.T, "weight_hh": recurrent.T, "bias_ih": bias[0] if case.cell == "gru" else bias}
    return {f"{kind}_{suffix}": _turned(case, grad) for kind, grad in found.items()}


def _imdb_bilstm() -> list[layers.Layer]:
    return [
        layers.Embedding(20_000, 128),
        layers.Bidirectional(layers.LSTM(64, return_sequences=True)),
        layers.Bidirectional(layers.LSTM(64)),
        layers.Dense(1, activation="sigmoid"),
    ]


def _imdb_cnn_lstm() -> list[layers.Layer]:
    return [
        layers.Embedding(20_000, 128),
        layers.Dropout(0.25),
        layers.Conv1D(64, 5, activation="relu"),
        layers.MaxPooling1D(4),
        layers.LSTM(70),
        layers.Dense(1, activation="sigmoid"),
    ]


def _imdb_lstm() -> list[layers.Layer]:
    return [
        layers.Embedding(5_000, 32),
        layers.LSTM(100),
        layers.Dense(1, activation="sigmoid"),
    ]


def _mnist_lstm() -> list[layers.Layer]:
    return [
        layers.LSTM(128, return_sequences=True),
        layers.Dropout(0.2),
        layers.LSTM(128),
        layers.Dense(64, activation="relu"),
        layers.Dropout(0.2),
        layers.Dense(10, activation="softmax"),
    ]


# experiment -> the layers of its model, after the input
MODELS = {
    "imdb_bilstm": _imdb_bilstm, "imdb_cnn_lstm": _imdb_cnn_lstm, "imdb_lstm": _imdb_lstm, "mnist_lstm": _mnist_lstm,
}  # fmt: skip


def prepare_training(case: TrainCase, arrays: Arrays, settings: Settings) -> Work:
    """Return the work of `model.fit` on the next rows of the examples; after the last row comes the first again."""
    inputs, targets, batch_size = arrays["inputs"], arrays["targets"], int(arrays["batch_size"])
    model = keras.Sequential([layers.Input(inputs.shape[1:], dtype=inputs.dtype.name), *MODELS[case.experiment]()])
    binary = model.output_shape[-1] == 1
    loss = "binary_crossentropy" if binary else "sparse_categorical_crossentropy"
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    at = 0

    def fit(calls: int) -> float:
        nonlocal at
        rows = np.arange(at, at + calls * batch_size) % len(inputs)
        at = (at + calls * batch_size) % len(inputs)
        x, y = inputs[rows], targets[rows]
        start = time.perf_counter()
        model.fit(x, y, batch_size=batch_size, epochs=1, verbose=0, shuffle=False)
        return time.perf_counter() - start

    def call() -> dict[str, float]:
        fit(1)
        return {"loss": model.history.history["loss"][-1]}

    def outputs(result: dict[str, float]) -> Arrays:
        return {"loss": np.asarray(result["loss"]), "parameters": np.asarray(model.count_params())}

    fit(1)  # compiles
    return Work(call, lambda result: None, outputs, run=fit, warms_up=False)
