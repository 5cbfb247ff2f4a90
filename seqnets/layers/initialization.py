"""Initializes the weights of recurrent layers. A new scheme is a function here and a line in `INITIALIZERS`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import init

from seqnets.cells import Cell
from seqnets.recurrence import Weights


def torch_default(cell: Cell, weights: Weights) -> None:
    """Initialize as `torch.nn.LSTM` does, with all weights uniform in ±1/√H.

    They are sampled in torch's order, so that the same seed gives bitwise the same weights.
    """
    bound = 1 / math.sqrt(weights.weight_hh.shape[0] // cell.gates)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"):
        if (weight := getattr(weights, name)) is not None:
            init.uniform_(weight, -bound, bound)


def keras(cell: Cell, weights: Weights) -> None:
    """Initialize as Keras does.

    The input kernel of all gates is Glorot uniform, and the recurrent kernel of all gates (of each head) is orthogonal.
    A projection (``weight_hr``) is Glorot uniform too. Biases are zero, except for 1 in ``bias_ih`` of a gate named
    ``f`` (Jozefowicz, Zaremba and Sutskever, ICML 2015).
    """
    init.xavier_uniform_(weights.weight_ih)
    orthogonal_heads(cell, weights)
    if weights.weight_hr is not None:
        init.xavier_uniform_(weights.weight_hr)
    for bias in (weights.bias_ih, weights.bias_hh):
        if bias is not None:
            init.zeros_(bias)
    if weights.bias_ih is not None and cell.gate_names and "f" in cell.gate_names:
        with torch.no_grad():
            weights.bias_ih.chunk(cell.gates)[cell.gate_names.index("f")].fill_(1.0)


def orthogonal_heads(cell: Cell, weights: Weights) -> None:
    """Make the ``(G·H/N, H/N)`` recurrent kernel of each head, for all gates, or the dense kernel, orthogonal."""
    weight_hh, rows = weights.weight_hh, weights.weight_hh.shape[0] // cell.gates
    heads = 1 if weights.weight_hr is not None else rows // weight_hh.shape[1]
    with torch.no_grad():
        for head in weight_hh.unflatten(0, (cell.gates, heads, -1)).unbind(1):
            head.copy_(init.orthogonal_(head.flatten(0, 1)).view_as(head))


INITIALIZERS: dict[str, Callable[[Cell, Weights], None]] = {"torch": torch_default, "keras": keras}
