"""Runs Flax's linen layers on JAX."""

from __future__ import annotations

from typing import Any

import flax
import jax
import numpy as np
from flax import linen as nn
from jax import numpy as jnp

from benchmarks.cases import Case, LayerCase
from benchmarks.contenders import Arrays, Settings, Work, jax_work
from benchmarks.contenders.jax_work import sequence_work, step_work

# linen, not nnx: the GRU of nnx has no bias inside the product with r, so it is not torch's
GATES = {"lstm": "ifgo", "gru": "rzn"}


def versions(settings: Settings) -> dict[str, Any]:
    return {"flax": flax.__version__} | jax_work.versions(settings)


def why_not(case: Case, settings: Settings) -> str | None:
    if not isinstance(case, LayerCase):
        return "no training loop is written for it here"
    return jax_work.why_not(case, "Flax")


def prepare(case: Case, arrays: Arrays, settings: Settings) -> Work:
    assert isinstance(case, LayerCase)
    if case.mode == "step":
        cell = _cell(case)
        state = (arrays["c"], arrays["h"]) if case.cell == "lstm" else arrays["h"]
        weights = _to_flax(case, arrays, "l0")

        def step(weights: dict[str, Any], state: Any, x: jax.Array) -> Any:
            return cell.apply({"params": weights}, state, x)

        return step_work(case, arrays, step, weights, state)

    layers = [_layer(case) for _ in range(case.layers)]

    def forward(weights: dict[str, Any], x: Any, lengths: jax.Array | None) -> jax.Array:
        for k, layer in enumerate(layers):
            x = layer.apply({"params": _of_layer(case, weights, k)}, x, seq_lengths=lengths)
        if lengths is None:
            return x
        # Flax does not zero what it computes past a row's end
        return jnp.where((jnp.arange(case.T)[:, None] < lengths)[..., None], x, 0)

    def to_torch(grads: dict[str, Any]) -> Arrays:
        return {name: grad for suffix in grads for name, grad in _to_torch(case, grads[suffix], suffix).items()}

    weights = {suffix: _to_flax(case, arrays, suffix) for suffix, _ in case.sizes()}
    return sequence_work(case, arrays, forward, weights, arrays.get("lengths"), to_torch, batch_first=False)


def _cell(case: LayerCase) -> nn.RNNCellBase:
    dtype = jax_work.DTYPES[case.dtype]
    if case.cell == "lstm":
        return nn.OptimizedLSTMCell(case.H, param_dtype=dtype)
    if case.cell == "gru":
        return nn.GRUCell(case.H, param_dtype=dtype)
    return nn.SimpleCell(case.H, nn.tanh if case.cell == "rnn_tanh" else nn.relu, param_dtype=dtype)


def _layer(case: LayerCase) -> nn.Module:
    # time first, as in the arrays, so that nothing is transposed
    one, other = (nn.RNN(_cell(case), time_major=True) for _ in range(2))
    return nn.Bidirectional(one, other, time_major=True) if case.bidirectional else one


def _of_layer(case: LayerCase, weights: dict[str, Any], k: int) -> dict[str, Any]:
    forward = {"cell": weights[f"l{k}"]}
    if case.bidirectional:
        return {"forward_rnn": forward, "backward_rnn": {"cell": weights[f"l{k}_reverse"]}}
    return forward


def _to_flax(case: LayerCase, arrays: Arrays, suffix: str) -> dict[str, Any]:
    """Convert the weights of a direction to Flax's layout, which has a kernel for each gate's products.

    Where `torch.nn` adds two biases, Flax has one, in the product that `_biased` names.
    """
    gates = GATES.get(case.cell, " ")
    parts = {
        kind: dict(zip(gates, np.split(arrays[f"{kind}_{suffix}"], len(gates)), strict=True))
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    found: dict[str, Any] = {}
    for gate in gates:
        found[f"i{gate}".strip()] = {"kernel": parts["weight_ih"][gate].T}
        found[f"h{gate}".strip()] = {"kernel": parts["weight_hh"][gate].T}
        bias_ih, bias_hh = parts["bias_ih"][gate], parts["bias_hh"][gate]
        if gate == "n":  # the only gate whose biases do not add up: r is between them
            found["in"]["bias"], found["hn"]["bias"] = bias_ih, bias_hh
        else:
            found[f"{_biased(case)}{gate}".strip()]["bias"] = bias_ih + bias_hh
    return found


def _to_torch(case: LayerCase, grads: dict[str, Any], suffix: str) -> Arrays:
    gates = GATES.get(case.cell, " ")

    def joined(side: str, what: str) -> np.ndarray:
        return np.concatenate([grads[f"{side}{gate}".strip()][what].T for gate in gates])

    return {
        f"weight_ih_{suffix}": joined("i", "kernel"),
        f"weight_hh_{suffix}": joined("h", "kernel"),
        f"bias_ih_{suffix}": joined(_biased(case), "bias"),
    }


def _biased(case: LayerCase) -> str:
    return "h" if case.cell == "lstm" else "i"
