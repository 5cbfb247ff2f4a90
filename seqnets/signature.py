"""Identifies calls for which the dispatch takes the same decision."""

from __future__ import annotations

import os
from collections.abc import Hashable
from operator import attrgetter

import torch

from seqnets import forking
from seqnets.backends import autoselect
from seqnets.conditions import PLAIN, in_functional_transform
from seqnets.kernels.availability import CHECK
from seqnets.recurrence import Problem, autocast_dtype

# Variables that may change a decision while the process runs
VARIABLES = (CHECK, autoselect.ENVIRONMENT_VARIABLE)

_dtype_of, _requires_grad = attrgetter("dtype"), attrgetter("requires_grad")


def signature(problem: Problem) -> Hashable | None:
    """Return everything on the CPU that the decision for a call depends on, or None if it must be taken anew.

    It must be taken anew on other devices, for tensors of other types than torch's own, while a graph is traced,
    compiled or exported, and under transforms of torch.func, vmap and forward-mode AD.
    """
    x = problem.x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    if torch._C._len_torch_dispatch_stack() or torch.jit.is_tracing():
        return None
    tensors = problem.tensors()
    if not PLAIN.issuperset(map(type, tensors)) or in_functional_transform(tensors):
        return None
    cell, first = problem.cell, problem.layers[0][0]
    differentiated = torch.is_grad_enabled() and any(map(_requires_grad, tensors))
    masks = bool(cell.masks) and any(mask.requires_grad for layer in problem.layers for w in layer for mask in w.masks)
    return (
        cell.key, tuple(cell.numbers_from_outside().items()), x.shape, frozenset(map(_dtype_of, tensors)),
        x.dtype, autocast_dtype(x), problem.state[0].shape[-1], problem.state[-1].shape[-1], first.weight_hh.shape[1],
        len(problem.layers), len(problem.layers[0]), first.bias_ih is None, first.bias_hh is None,
        first.weight_hr is None, problem.lengths is None or problem.lengths.device, problem.dropout > 0,
        problem.all_states, problem.recompute, differentiated, x.requires_grad,
        masks, torch.get_num_threads(), forking.forked,
        autoselect.adopted, torch.are_deterministic_algorithms_enabled(), *map(os.environ.get, VARIABLES),
    )  # fmt: skip
