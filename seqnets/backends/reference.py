"""The reference: a time loop over the cell's own step. Any device, any dtype, any order of derivative."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from seqnets.recurrence import Direction, Problem, Result, autocast_dtype, layer_by_layer, project_input


def why_not(problem: Problem) -> str | None:
    return None


def run(problem: Problem) -> Result:
    result = layer_by_layer(problem, run_direction)
    dtype = autocast_dtype(problem.x)
    if dtype is None:
        return result
    # products were in the autocast dtype and states carried in float32; torch's own RNNs return the former
    return tree_map_only(Tensor, lambda tensor: tensor.to(dtype), result)


def run_direction(direction: Direction) -> list[Tensor]:
    """The states at every time step, ``(T, B, H)`` each, in the order of time."""
    cell, x, state, weights, active, reverse = direction
    # unbind, not indexing: its backward is one stack, where T indexings would each fill a whole gradient
    x_gates = project_input(weights, x).unbind(0)
    running = None if active is None else active.unbind(0)
    every = []
    for t in reversed(range(len(x_gates))) if reverse else range(len(x_gates)):
        r_gates = F.linear(state[0], weights.weight_hh, weights.bias_hh)
        masks = [m if m.dim() == 2 else m[t] for m in weights.masks]
        new = cell(x_gates[t].chunk(cell.gates, -1), r_gates.chunk(cell.gates, -1), state, weights.params, masks)
        if weights.weight_hr is not None:
            new = (F.linear(new[0], weights.weight_hr), *new[1:])
        # a row that is not running keeps its state: finished (forward), or not yet begun (reverse)
        state = (
            new if running is None else tuple(torch.where(running[t], n, s) for n, s in zip(new, state, strict=True))
        )
        every.append(state)
    if reverse:
        every.reverse()
    return [torch.stack(steps) for steps in zip(*every, strict=True)]
