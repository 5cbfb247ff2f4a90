"""Runs the fused Triton kernels that are generated from any cell, on GPUs or in Triton's interpreter on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from seqnets.backends.kernels import autocast, is_differentiated, returns_more, why_unfit
from seqnets.conditions import graph_is_captured
from seqnets.kernels.availability import interpreted, why_unavailable
from seqnets.kernels.triton.layout import pack_rows, pack_weight
from seqnets.kernels.triton.operator import recurrence
from seqnets.kernels.triton.support import why_refused
from seqnets.recurrence import Problem, Result, Weights, active_steps, autocast_dtype, count_heads

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def why_not(problem: Problem) -> str | None:
    x, first = problem.x, problem.layers[0][0]
    unavailable = why_unavailable(x.device.type)
    if unavailable is not None:
        return unavailable
    unfit = why_unfit(problem, DTYPES)
    if unfit is not None:
        return unfit
    if problem.lengths is not None and problem.lengths.device != x.device and graph_is_captured():
        return (
            "the lengths are on the CPU, from where nothing can be copied while a CUDA graph is captured; "
            "pass them on the GPU"
        )
    dtype = autocast_dtype(x) or x.dtype
    P, N = problem.state[0].shape[-1], count_heads(problem.state[0], first.weight_hh)
    differentiated = is_differentiated(problem)
    return why_refused(
        problem.cell.key, N, P // N, len(problem.layers[0]), problem.lengths is not None,
        tuple(mask.dim() == 3 for mask in first.masks), dtype, first.bias_hh is not None,
        differentiated, differentiated and not problem.recompute, returns_more(problem), str(x.device),
    )  # fmt: skip


def only_if_asked(problem: Problem) -> str | None:
    if interpreted():
        return "Triton runs as an interpreter (TRITON_INTERPRET=1): right, and slow; ask for it with backend='triton'"
    return None


def run(problem: Problem) -> Result:
    problem = autocast(problem)
    cell, x, lengths = problem.cell, problem.x, problem.lengths
    T, D = x.shape[0], len(problem.layers[0])
    N = count_heads(problem.state[0], problem.layers[0][0].weight_hh)
    lengths = None if lengths is None else lengths.to(x.device, torch.int64, non_blocking=True)
    differentiated = is_differentiated(problem)
    keep = differentiated or returns_more(problem)
    finals: list[list[Tensor]] = []
    for number, layer in enumerate(problem.layers):
        if number and problem.dropout:
            x = F.dropout(x, problem.dropout)
        initial = [s[number * D : (number + 1) * D].unflatten(-1, (N, -1)) for s in problem.state]
        results = recurrence(
            _project_input(layer, x, cell.gates, N),
            initial,
            _stack([pack_weight(w.weight_hh, cell.gates, N) for w in layer]),
            _pack_biases([w.bias_hh for w in layer], cell.gates, N),
            [_stack(p).unflatten(-1, (N, -1)) for p in zip(*(w.params for w in layer), strict=True)],
            [_stack_masks(masks, N) for masks in zip(*(w.masks for w in layer), strict=True)],
            lengths,
            cell.key,
            keep_states=keep,
            keep_r=differentiated and not problem.recompute,
        )
        states = [s.flatten(-2) for s in (results[: len(initial)] if keep else results[:1])]
        final = [s.flatten(-2) for s in results[len(states) : len(states) + len(initial)]]
        finals.append(final)
        x = states[0].flatten(-2)
    every = None
    if problem.all_states:
        active = None if lengths is None else active_steps(lengths, T, x.device)
        resting = [torch.stack([f[0], *(s.flatten(-2)[1:])]) for f, s in zip(final, initial, strict=True)]
        every = tuple(
            (s if active is None else torch.where(active.unsqueeze(-1), s, at_rest.transpose(0, 1))).flatten(-2)
            for s, at_rest in zip(states, resting, strict=True)
        )
    return Result(x, tuple(torch.cat(rows) for rows in zip(*finals, strict=True)), every)


def _project_input(layer: tuple[Weights, ...], x: Tensor, gates: int, heads: int) -> Tensor:
    """Compute the packed input projections of all steps and directions, ``(T, B, D, N, Q)``, in one product."""
    weight = _stack([pack_rows(w.weight_ih, gates, heads) for w in layer])
    bias = _pack_biases([w.bias_ih for w in layer], gates, heads)
    packed = F.linear(x, weight.flatten(0, 2), None if bias is None else bias.flatten())
    return packed.unflatten(-1, (len(layer), heads, -1))


def _pack_biases(directions: list[Tensor | None], gates: int, heads: int) -> Tensor | None:
    """Return the packed biases, ``(D, N, Q)``, or None. A layer has them in all directions or in none."""
    packed = [pack_rows(bias, gates, heads) for bias in directions if bias is not None]
    return _stack(packed) if packed else None


def _stack(directions: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    if len(directions) == 1:  # torch.stack would copy it
        return directions[0].unsqueeze(0)
    return torch.stack(directions)


def _stack_masks(masks: tuple[Tensor, ...], heads: int) -> Tensor:
    """Stack the masks of all directions into ``(D, T, B, N, U)``, with 1 for T if a mask is the same at all steps."""
    stacked = _stack(masks).unflatten(-1, (heads, -1))
    return stacked if stacked.dim() == 5 else stacked.unsqueeze(1)
