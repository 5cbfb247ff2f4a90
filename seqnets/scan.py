"""The time loop over a cell's own step, in plain PyTorch: what the reference runs, and what kernels are checked against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seqnets.cells import Cell
from seqnets.recurrence import Weights, autocast_dtype, project_state


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
    own = _for_each_step(weights, len(steps), autocast_dtype(x_gates))
    every = []
    for t in reversed(range(len(steps))) if reverse else range(len(steps)):
        weight_hh, bias_hh, weight_hr, *params = own[t]
        r_gates = project_state(state[0], weight_hh, bias_hh)
        masks = [m if m.dim() == 2 else m[t] for m in weights.masks]
        new = cell(steps[t].chunk(cell.gates, -1), r_gates.chunk(cell.gates, -1), state, params, masks)
        if weight_hr is not None:
            new = (F.linear(new[0], weight_hr), *new[1:])
        # a row that is not running keeps its state: finished (forward), or not yet begun (reverse)
        state = (
            new if running is None else tuple(torch.where(running[t], n, s) for n, s in zip(new, state, strict=True))
        )
        every.append(state)
    if reverse:
        every.reverse()
    return [torch.stack(states) for states in zip(*every, strict=True)]


def _for_each_step(weights: Weights, steps: int, products: torch.dtype | None) -> list[tuple[Any, ...]]:
    """Give every step its `weight_hh`, `bias_hh`, `weight_hr` and parameters."""
    multiplied = [weights.weight_hh, weights.bias_hh, weights.weight_hr]
    if products is not None:  # autocast would cast them at every step
        multiplied = [w if w is None else w.to(products) for w in multiplied]
    return list(zip(*(_summed_in_pairs(tensor, steps) for tensor in (*multiplied, *weights.params)), strict=True))


def _summed_in_pairs(tensor: Tensor | None, uses: int) -> list[Tensor | None]:
    """Return an alias of `tensor` for each use, so that autograd adds the gradients of the uses up in a binary tree.

    Added up one after another in 16 bits, they would be rounded once for every step: after hundreds of steps little is right.
    """
    if tensor is None or tensor.dtype not in (torch.float16, torch.bfloat16) or not tensor.requires_grad:
        return [tensor] * uses
    aliases = [tensor]
    while len(aliases) < uses:
        aliases = [alias.view_as(alias) for alias in aliases for _ in range(2)]
    return list(aliases[:uses])
