"""The reference: a time loop over the cell's own step. Any device, any dtype, any order of derivative."""

from __future__ import annotations

from torch import Tensor
from torch.utils._pytree import tree_map_only

from seqnets.recurrence import Direction, Problem, Result, autocast_dtype, layer_by_layer, project_input
from seqnets.scan import scan


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
    cell, x, state, weights, active, reverse = direction
    return scan(cell, project_input(weights, x), state, weights, active, reverse)
