"""Lists the kernels that a layer's calls launch, so that they can be compiled before there is a layer or a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.kernels.triton.launch import Inputs, Launch, allocate_gradients, allocate_outputs, backward, forward
from seqnets.kernels.triton.module import generate
from seqnets.kernels.triton.planning.plan import Plan
from seqnets.kernels.triton.trial import Variant


class Case(NamedTuple):
    """Describes a kernel to compile, except for its cell and its plan."""

    units: int  # per head
    heads: int
    dtype: torch.dtype
    backward: bool
    kept: bool = True  # whether the forward pass keeps all states, as backward needs them
    ragged: bool = False
    directions: int = 1
    recompute: bool = False  # whether the recurrent projections are left out of what is kept
    bias: bool = True
    per_step: tuple[bool, ...] | None = None  # for each mask, whether there is one per time step; None: all
    all_states: bool = False  # whether the backward pass is given gradients of all states, or of the output alone


def cases_of(cell: Cell, variant: Variant) -> Iterator[Case]:
    """Yield the kernels of a layer's call and of the check of its first use, which keeps all that can be kept."""
    case = Case(
        variant.U, variant.N, variant.dtype, False, True, variant.ragged, variant.D, False, variant.bias,
        variant.per_step,
    )  # fmt: skip
    yield case
    if not variant.keep_r:
        kept = (variant.differentiated or variant.all_states) and len(cell.states) > 1  # the first state is the output
        yield case._replace(kept=kept, recompute=kept)
    if variant.differentiated:
        for all_states in (False, True)[: 1 + variant.all_states]:
            yield case._replace(backward=True, bias=True, all_states=all_states)  # it reads no bias


def first_launch(cell: Cell, case: Case, plan: Plan) -> Launch:
    """Return the first launch of the pass, on ``meta`` tensors, which have no memory.

    Their time steps and batch size do not affect what is compiled.
    """
    generated, inputs = generate(cell), _inputs(cell, case)
    outputs = allocate_outputs(inputs, case.kept, case.kept and not case.recompute)
    if not case.backward:
        return next(forward(generated, inputs, outputs, plan))
    d_states = tuple(y if k == 0 or case.all_states else None for k, y in enumerate(outputs.states))
    gradients = allocate_gradients(generated, inputs)
    return next(backward(generated, inputs, outputs, d_states, outputs.finals, gradients, plan))


def _inputs(cell: Cell, case: Case, T: int = 2, B: int = 16) -> Inputs:
    D, N, U, Q = case.directions, case.heads, case.units, cell.gates * case.units
    per_step = (True,) * len(cell.masks) if case.per_step is None else case.per_step

    def tensor(*shape: int, dtype: torch.dtype = case.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    return Inputs(
        x=tensor(T, B, D, N, Q),
        state=tuple(tensor(D, B, N, U) for _ in cell.states),
        weight=tensor(D, N, U, Q),
        bias=tensor(D, N, Q) if case.bias else None,
        params=tuple(tensor(D, N, U) for _ in cell.params),
        masks=tuple(tensor(D, T if per else 1, B, N, U) for per in per_step),
        lengths=tensor(B, dtype=torch.int64) if case.ragged else None,
    )
