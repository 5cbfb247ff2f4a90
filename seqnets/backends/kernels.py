"""Holds what the backends of generated kernels share: the problems they refuse, and the conversion to one dtype."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from seqnets.conditions import in_functional_transform, why_own_rules
from seqnets.recurrence import Problem, autocast_dtype


def why_unfit(problem: Problem, dtypes: Sequence[torch.dtype]) -> str | None:
    """Return why no generated kernel can serve the problem in these dtypes, as a clause, or None if one may."""
    x, tensors = problem.x, problem.tensors()
    if own_rules := why_own_rules(tensors):
        return own_rules
    if problem.layers[0][0].weight_hr is not None:
        return "its kernels have no projection of the state (proj_size) yet"
    if problem.cell.masks and any(mask.requires_grad for layer in problem.layers for w in layer for mask in w.masks):
        return "its kernels have no gradients of masks, and one of these requires them"
    if in_functional_transform(tensors):
        return "its kernels have no rules for torch.func transforms (vmap, jvp, grad) and forward-mode AD"
    autocast = autocast_dtype(x)
    dtype = autocast or x.dtype
    if dtype not in dtypes:
        return f"its kernels compute in {', '.join(str(d).removeprefix('torch.') for d in dtypes)}, not in {dtype}"
    for t in tensors:
        if autocast is None and t.dtype is not dtype:
            return f"not all weights and states have the input's dtype, {dtype}"
        if autocast is not None and t.dtype is torch.float64:
            return "some weights or states are in float64, which autocast leaves alone"
    return None


def autocast(problem: Problem) -> Problem:
    """Cast all tensors of a problem to the autocast dtype, if any: torch's own RNNs compute and return it too."""
    dtype = autocast_dtype(problem.x)
    if dtype is None:
        return problem
    x, state, layers = tree_map_only(Tensor, lambda t: t.to(dtype), (problem.x, problem.state, problem.layers))
    return problem._replace(x=x, state=state, layers=layers)


def is_differentiated(problem: Problem) -> bool:
    # a list, because a generator takes a Python call for each tensor
    return torch.is_grad_enabled() and any([t.requires_grad for t in problem.tensors()])  # noqa: C419


def returns_more(problem: Problem) -> bool:
    """Tell whether the problem asks for states at every step that are not the output."""
    return problem.all_states and len(problem.state) > 1
