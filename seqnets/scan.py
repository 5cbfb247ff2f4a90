"""The time loop over a cell's own step, in plain PyTorch: what the reference runs, and what kernels are checked against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from seqnets.cells import Cell
from seqnets.recurrence import Weights, project_state


def scan(
    cell: Cell,
    x_gates: Tensor,
    state: Sequence[Tensor],
    weights: Weights,
    active: Tensor | None = None,
    reverse: bool = False,
) -> list[Tensor]:
    """Run one direction of one layer. Any device, any dtype, any order of derivative.

    Args:
        x_gates: ``(T, B, G·H)``, T ≥ 1, the input projection of every step, `bias_ih` included.
        state: the initial states ``(B, H)``, the first ``(B, P)``, in the order of ``cell.states``.
        weights: the recurrent ones, the cell's parameters and its masks are read; those of the input are not.
        active: ``(T, B, 1)`` bool, whether the row runs at the step; where not, it keeps its state. None: all always do.
        reverse: from the last step to the first.

    Returns:
        The states after every step, ``(T, B, H)`` each, the first ``(T, B, P)``, in the order of time.
    """
    # unbind, not indexing: its backward is one stack, where T indexings would each fill a whole gradient
    steps = x_gates.unbind(0)
    running = None if active is None else active.unbind(0)
    every = []
    for t in reversed(range(len(steps))) if reverse else range(len(steps)):
        r_gates = project_state(state[0], weights.weight_hh, weights.bias_hh)
        masks = [m if m.dim() == 2 else m[t] for m in weights.masks]
        new = cell(steps[t].chunk(cell.gates, -1), r_gates.chunk(cell.gates, -1), state, weights.params, masks)
        if weights.weight_hr is not None:
            new = (F.linear(new[0], weights.weight_hr), *new[1:])
        # a row that is not running keeps its state: finished (forward), or not yet begun (reverse)
        state = (
            new if running is None else tuple(torch.where(running[t], n, s) for n, s in zip(new, state, strict=True))
        )
        every.append(state)
    if reverse:
        every.reverse()
    return [torch.stack(states) for states in zip(*every, strict=True)]
