"""The kernels that are generated from the cell, in C++, compiled where they run: any cell, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from seqnets.backends.conditions import in_functional_transform
from seqnets.kernels.cpp.operator import run_layer
from seqnets.kernels.cpp.refusal import why_refused
from seqnets.recurrence import Problem, Result, active_steps, autocast_dtype

DTYPES = (torch.bfloat16, torch.float32, torch.float64)


def why_not(problem: Problem) -> str | None:
    x, first = problem.x, problem.layers[0][0]
    if x.device.type != "cpu":
        return f"its kernels run on the CPU, and the input is on {x.device}"
    if first.weight_hr is not None:
        return "its kernels have no projection of the state (proj_size) yet"
    if any(mask.requires_grad for layer in problem.layers for w in layer for mask in w.masks):
        return "its kernels have no gradients of masks, and one of these requires them"
    if in_functional_transform(x):
        return "its kernels have no rules for torch.func transforms (vmap, jvp, grad) and forward-mode AD"
    tensors = _tensors(problem)
    if any(t.device != x.device for t in tensors):
        return "not all weights and states are on the CPU"
    dtype = autocast_dtype(x) or x.dtype
    if dtype not in DTYPES:
        return f"its kernels compute in {', '.join(str(d).removeprefix('torch.') for d in DTYPES)}, not in {dtype}"
    if autocast_dtype(x) is None and any(t.dtype is not dtype for t in tensors):
        return f"not all weights and states have the input's dtype, {dtype}"
    return why_refused(problem.cell.key, dtype)


def only_if_asked(problem: Problem) -> str | None:
    return "where it is the faster one is not measured yet; ask for it with backend='cpp'"


def run(problem: Problem) -> Result:
    dtype = autocast_dtype(problem.x)
    if dtype is not None:
        problem = _cast(problem, dtype)
    cell, x, lengths = problem.cell, problem.x, problem.lengths
    D, S = len(problem.layers[0]), len(problem.state)
    differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in _tensors(problem))
    keep_states = differentiated or (problem.all_states and S > 1)
    lengths = None if lengths is None else lengths.to(x.device, torch.int64)
    finals: list[Sequence[Tensor]] = []
    for number, weights in enumerate(problem.layers):
        if number and problem.dropout:
            x = F.dropout(x, problem.dropout)
        initial = [s[number * D : (number + 1) * D] for s in problem.state]
        results = run_layer(
            x,
            initial,
            [w.weight_ih for w in weights],
            [w.weight_hh for w in weights],
            [w.bias_ih for w in weights if w.bias_ih is not None],
            [w.bias_hh for w in weights if w.bias_hh is not None],
            [p for w in weights for p in w.params],
            [m for w in weights for m in w.masks],
            lengths,
            cell.key,
            keep_states,
            differentiated,
        )
        x, finals = results[0], [*finals, results[1 : 1 + S]]
    every = None
    if problem.all_states:
        states = [x, *results[1 + S : 2 * S]]
        if lengths is not None:
            active = active_steps(lengths, len(x), x.device)
            resting = [torch.cat([f[0], *s[1:]], dim=-1) for f, s in zip(finals[-1], initial, strict=True)]
            states = [torch.where(active, s, at_rest) for s, at_rest in zip(states, resting, strict=True)]
        every = tuple(states)
    return Result(x, tuple(torch.cat(rows) for rows in zip(*finals, strict=True)), every)


def _tensors(problem: Problem) -> list[Tensor]:
    weights = [w for layer in problem.layers for w in layer]
    own = [t for w in weights for t in (*w[:5], *w.params, *w.masks) if t is not None]
    return [problem.x, *problem.state, *own]


def _cast(problem: Problem, dtype: torch.dtype) -> Problem:
    x, state, layers = tree_map_only(Tensor, lambda t: t.to(dtype), (problem.x, problem.state, problem.layers))
    return problem._replace(x=x, state=state, layers=layers)
