"""Runs the C++ kernels that are generated from any cell, on the CPU, where they are also compiled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from seqnets.backends.kernels import autocast, is_differentiated, returns_more, why_unfit
from seqnets.conditions import is_exporting
from seqnets.kernels.cpp.operator import run_layer
from seqnets.kernels.cpp.support import why_refused
from seqnets.recurrence import Problem, Result, active_steps, autocast_dtype

DTYPES = (torch.bfloat16, torch.float32, torch.float64)


def why_not(problem: Problem) -> str | None:
    x = problem.x
    if x.device.type != "cpu":
        return f"its kernels run on the CPU, and the input is on {x.device}"
    if not torch.compiler.is_compiling() and torch.jit.is_tracing():
        return "torch.jit.trace would keep its results as constants"
    return why_unfit(problem, DTYPES) or why_refused(problem.cell.key, autocast_dtype(x) or x.dtype)


def only_if_asked(problem: Problem) -> str | None:
    if is_exporting():
        return "exported programs should run without this library; ask for its operator with backend='cpp'"
    return None


def run(problem: Problem) -> Result:
    problem = autocast(problem)
    cell, x, lengths = problem.cell, problem.x, problem.lengths
    D, S = len(problem.layers[0]), len(problem.state)
    differentiated = is_differentiated(problem)
    keep_states = differentiated or returns_more(problem)
    lengths = None if lengths is None else lengths.to(x.device, torch.int64)
    finals: list[Sequence[Tensor]] = []
    many = len(problem.layers) > 1
    initials = zip(*[s.split(D) for s in problem.state], strict=True) if many else [problem.state]
    for number, (layer, initial) in enumerate(zip(problem.layers, initials, strict=True)):
        if number and problem.dropout:
            x = F.dropout(x, problem.dropout)
        weight_ih, weight_hh, bias_ih, bias_hh, _, params, masks = zip(*layer, strict=True)
        results = run_layer(
            x,
            initial,
            weight_ih,
            weight_hh,
            () if bias_ih[0] is None else bias_ih,
            () if bias_hh[0] is None else bias_hh,
            sum(params, ()),
            sum(masks, ()),
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
    state = finals[0] if len(finals) == 1 else [torch.cat(rows) for rows in zip(*finals, strict=True)]
    return Result(x, tuple(state), every)
