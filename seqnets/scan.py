"""Implements the time loop over a cell's own step in plain PyTorch.

The reference backend runs this loop, and kernels are checked against it.
"""

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
    """Run one direction of one layer, on any device, in any dtype, with derivatives of any order.

    Args:
        cell: the cell whose step is run.
        x_gates: ``(T, B, G·H)``, T ≥ 1, the input projections of all steps, `bias_ih` included.
        state: the initial states ``(B, H)``, the first ``(B, P)``, in the order of ``cell.states``.
        weights: the weights of the direction. ``weight_ih`` and ``bias_ih`` are not read.
        active: ``(T, B, 1)`` bool, whether the row runs at the step; a row that does not keeps its state. None means
            that all rows run at all steps.
        reverse: whether to run from the last step to the first.

    Returns:
        The states after every step, ``(T, B, H)`` each, the first ``(T, B, P)``, in order of time.
    """
    # unbind, not indexing: its backward is one stack, while each of T indexings would fill a whole gradient
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
        # a row that is not running keeps its state: it is finished (forward) or has not begun (reverse)
        state = (
            new if running is None else tuple(torch.where(running[t], n, s) for n, s in zip(new, state, strict=True))
        )
        every.append(state)
    if reverse:
        every.reverse()
    return [torch.stack(states) for states in zip(*every, strict=True)]


def _for_each_step(weights: Weights, steps: int, products: torch.dtype | None) -> list[tuple[Any, ...]]:
    """Return ``(weight_hh, bias_hh, weight_hr, *params)`` for each step, with weights cast to the dtype of products."""
    multiplied = [weights.weight_hh, weights.bias_hh, weights.weight_hr]
    if products is not None:  # cast once; autocast would cast them at every step
        multiplied = [w if w is None else w.to(products) for w in multiplied]
    return list(zip(*(_summed_in_pairs(tensor, steps) for tensor in (*multiplied, *weights.params)), strict=True))


def _summed_in_pairs(tensor: Tensor | None, uses: int) -> list[Tensor | None]:
    """Return an alias of `tensor` for each use, so that autograd sums the gradients of the uses in a binary tree.

    Only 16-bit tensors that require gradients need this. If their gradients were summed one after another, the sum
    would be rounded at every step and be inaccurate after hundreds of steps.
    """
    if tensor is None or tensor.dtype not in (torch.float16, torch.bfloat16) or not tensor.requires_grad:
        return [tensor] * uses
    aliases = [tensor]
    while len(aliases) < uses:
        aliases = [alias.view_as(alias) for alias in aliases for _ in range(2)]
    return list(aliases[:uses])
