"""How a recurrent layer's parameters begin. A new scheme is a function here and a line in `INITIALIZERS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import init

if TYPE_CHECKING:
    from seqnets.layers.recurrent import Recurrent


def torch_default(layer: Recurrent) -> None:
    """As `torch.nn.LSTM`: everything uniform in ±1/√H, drawn in torch's order, so that seeds carry over bit for bit."""
    bound = 1 / math.sqrt(layer.hidden_size)
    for weights in layer.all_weights:
        for weight in weights:
            init.uniform_(weight, -bound, bound)


def keras(layer: Recurrent) -> None:
    """As Keras: Glorot uniform over the whole input kernel, orthogonal over the whole recurrent kernel, zero biases
    but 1 for a gate named ``f`` (Jozefowicz, Zaremba and Sutskever, ICML 2015)."""
    for weights in layer.direction_weights():
        init.xavier_uniform_(weights.weight_ih)
        init.orthogonal_(weights.weight_hh)
        if weights.weight_hr is not None:
            init.xavier_uniform_(weights.weight_hr)
        for bias in (weights.bias_ih, weights.bias_hh):
            if bias is not None:
                init.zeros_(bias)
        if weights.bias_ih is not None and layer.cell.gate_names and "f" in layer.cell.gate_names:
            with torch.no_grad():
                forget = weights.bias_ih.chunk(layer.cell.gates)[layer.cell.gate_names.index("f")]
                forget.fill_(1.0)


INITIALIZERS: dict[str, Callable[[Recurrent], None]] = {"torch": torch_default, "keras": keras}
