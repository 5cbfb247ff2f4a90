"""Implements the reference backend: a time loop over the cell's own step.

It supports any device, any dtype and derivatives of any order.
"""

from __future__ import annotations

from torch import Tensor
from torch.utils._pytree import tree_map_only

from seqnets.recurrence import Direction, Problem, Result, autocast_dtype, layer_by_layer, project_input
from seqnets.scan import scan


def why_not(problem: Problem) -> str | None:
    return None


def run(problem: Problem) -> Result:
    dtype = autocast_dtype(problem.x)
    if dtype is None:
        return layer_by_layer(problem, run_direction)
    # Products use the autocast dtype, and states are carried in the dtype of the weights. The result has the autocast
    # dtype, as with torch's own RNNs.
    carried = problem.layers[0][0].weight_hh.dtype
    result = layer_by_layer(problem._replace(state=tuple(s.to(carried) for s in problem.state)), run_direction)
    return tree_map_only(Tensor, lambda tensor: tensor.to(dtype), result)


def run_direction(direction: Direction) -> list[Tensor]:
    cell, x, state, weights, active, reverse = direction
    return scan(cell, project_input(weights, x), state, weights, active, reverse)
