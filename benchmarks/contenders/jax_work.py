"""Compiles work ahead of time, calls it and reads its results, for all libraries on JAX."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU is shared with other contenders' processes

import jax
from jax import numpy as jnp

from benchmarks.cases import LayerCase
from benchmarks.contenders import Absent, Arrays, Settings, Work

CELLS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
DTYPES = {"fp32": jnp.float32, "fp16": jnp.float16, "bf16": jnp.bfloat16}


def versions(settings: Settings) -> dict[str, Any]:
    # threads need no setting: XLA starts as many as there are processors that this process may use
    jax.config.update("jax_platforms", settings.device)
    # a call on the CPU does its work itself; otherwise it would wake another thread, and calls might overlap
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_default_matmul_precision", {"ieee": "highest", "tf32": "tensorfloat32"}[settings.precision])
    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # the latter if JAX was installed for the CPU only
        raise Absent(
            f"JAX {jax.__version__} finds no {settings.device} device here; pip install 'jax[cuda13]'"
        ) from None
    return {"jax": jax.__version__}


def why_not(case: LayerCase, library: str) -> str | None:
    if case.cell not in CELLS:
        return f"{library} has no such cell"
    if case.dtype not in DTYPES:
        return "JAX has no float64 unless a whole process is told to"
    return None


def sequence_work(
    case: LayerCase,
    arrays: Arrays,
    forward: Callable[[Any, jax.Array, jax.Array | None], jax.Array],
    weights: Any,
    valid: np.ndarray | None,
    to_torch: Callable[[Any], Arrays],
    batch_first: bool,
) -> Work:
    """Return the work of a library whose layer is ``forward(weights, x, valid)``.

    Args:
        case: The layer, in mode "infer" or "train".
        arrays: The inputs of the case, time first.
        forward: Returns the outputs of the layer.
        weights: A tree of the weights, as the library has them.
        valid: The lengths in the library's form, such as a mask; None where all rows are equally long.
        to_torch: Gives the gradients of `weights` their names and shapes in `torch.nn`.
        batch_first: Whether the library wants inputs (B, T, I) rather than (T, B, I).
    """

    def infer(weights: Any, valid: jax.Array | None, x: jax.Array) -> dict[str, Any]:
        return {"y": forward(weights, x, valid)}

    def train(weights: Any, valid: jax.Array | None, x: jax.Array, d_y: jax.Array) -> dict[str, Any]:
        y, backward = jax.vjp(lambda weights, x: forward(weights, x, valid), weights, x)
        d_weights, d_x = backward(d_y)
        return {"y": y, "d_x": d_x, "weights": d_weights}

    def turned(array: Any) -> Any:
        return array.swapaxes(0, 1) if batch_first else array

    run = infer if case.mode == "infer" else train
    places = on_device([turned(arrays[name]) for name in ("x", "d_y") if name in arrays], case)
    given = (on_device(weights, case), None if valid is None else jnp.asarray(valid), *places)
    compiled = jax.jit(run).lower(*given).compile()

    def outputs(result: dict[str, Any]) -> Arrays:
        found: Arrays = {name: turned(to_float(result[name])) for name in ("y", "d_x") if name in result}
        if "weights" in result:
            found |= {f"d_{name}": grad for name, grad in to_torch(to_float(result["weights"])).items()}
        return found

    return Work(lambda: compiled(*given), jax.block_until_ready, outputs)


def step_work(
    case: LayerCase,
    arrays: Arrays,
    step: Callable[[Any, Any, jax.Array], tuple[Any, jax.Array]],
    weights: Any,
    state: Any,
) -> Work:
    """Return the work of a library whose cell is ``step(weights, state, x) -> state, y``; calls carry the state on."""
    weights, state, x = on_device((weights, state, arrays["x"]), case)
    compiled = jax.jit(step).lower(weights, state, x).compile()

    def call() -> jax.Array:
        nonlocal state
        state, y = compiled(weights, state, x)
        return y

    return Work(call, jax.block_until_ready, lambda y: {"y": to_float(y)})


def on_device(tree: Any, case: LayerCase) -> Any:
    return jax.tree.map(lambda array: jnp.asarray(array, DTYPES[case.dtype]), tree)


def to_float(tree: Any) -> Any:
    return jax.tree.map(lambda array: np.array(array, np.float32), tree)
