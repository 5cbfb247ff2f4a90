"""One pass over one cell, compiled ahead of time as the plan for a GPU says, and what can be counted in it."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget

from seqnets.cells import Cell
from seqnets.kernels.ahead_of_time import compile_ahead
from seqnets.kernels.analysis.disassembly import Count, Resources, per_step, resources
from seqnets.kernels.generation.module import generate
from seqnets.kernels.launch import Inputs, Launch, allocate_gradients, allocate_outputs, backward, forward
from seqnets.kernels.planning.arch import Arch
from seqnets.kernels.planning.plan import Plan


class Case(NamedTuple):
    """A kernel to be compiled, beside its cell and its plan."""

    units: int  # per head
    heads: int
    dtype: torch.dtype
    backward: bool
    kept: bool = True  # whether the forward pass keeps what backward needs
    ragged: bool = False
    directions: int = 1


class Compiled(NamedTuple):
    resources: Resources
    counted: Count
    seconds: float  # of compilation, or of reading Triton's cache


def first_launch(cell: Cell, case: Case, plan: Plan) -> Launch:
    """The first launch of the pass, on tensors without memory. Its time steps and batch are no part of what is compiled."""
    generated, inputs = generate(cell), _inputs(cell, case)
    outputs = allocate_outputs(inputs, case.kept, case.kept)
    if not case.backward:
        return next(forward(generated, inputs, outputs, plan))
    d_states = (outputs.states[0], *(None for _ in cell.states[1:]))
    gradients = allocate_gradients(generated, inputs)
    return next(backward(generated, inputs, outputs, d_states, outputs.finals, gradients, plan))


def compile_case(cell: Cell, case: Case, plan: Plan, arch: Arch) -> Any:
    """Triton's compiled kernel."""
    return compile_ahead(first_launch(cell, case, plan), GPUTarget(arch.backend, arch.version, arch.warp_size))


def examine(cell: Cell, case: Case, plan: Plan, arch: Arch) -> Compiled:
    """Compile and count."""
    start = time.perf_counter()
    kernel = compile_case(cell, case, plan, arch)
    seconds = time.perf_counter() - start
    return Compiled(resources(kernel), per_step(kernel, time_loop=plan.schedule == "resident"), seconds)


def _inputs(cell: Cell, case: Case, T: int = 2, B: int = 16) -> Inputs:
    D, N, U, Q = case.directions, case.heads, case.units, cell.gates * case.units

    def tensor(*shape: int, dtype: torch.dtype = case.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    return Inputs(
        x=tensor(T, B, D, N, Q),
        state=tuple(tensor(D, B, N, U) for _ in cell.states),
        weight=tensor(D, N, U, Q),
        bias=tensor(D, N, Q),
        params=tuple(tensor(D, N, U) for _ in cell.params),
        masks=tuple(tensor(D, T, B, N, U) for _ in cell.masks),
        lengths=tensor(B, dtype=torch.int64) if case.ragged else None,
    )
