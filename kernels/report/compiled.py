"""Compiles one pass of a cell ahead of time, by the plan for a GPU, and counts what is in the result."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from seqnets.cells import Cell
from seqnets.kernels.report.disassembly import Count, Resources, per_step, resources
from seqnets.kernels.triton.ahead_of_time import compile_ahead, target_of
from seqnets.kernels.triton.cases import Case, first_launch
from seqnets.kernels.triton.planning.arch import Arch
from seqnets.kernels.triton.planning.plan import Plan


class Compiled(NamedTuple):
    resources: Resources
    counted: Count
    seconds: float  # of compilation, or of reading Triton's cache


def compile_case(cell: Cell, case: Case, plan: Plan, arch: Arch) -> Any:
    """Return Triton's compiled kernel of the case."""
    return compile_ahead(first_launch(cell, case, plan), target_of(arch))


def examine(cell: Cell, case: Case, plan: Plan, arch: Arch) -> Compiled:
    """Compile the case, and count its resources and its instructions per time step."""
    start = time.perf_counter()
    kernel = compile_case(cell, case, plan, arch)
    seconds = time.perf_counter() - start
    return Compiled(resources(kernel), per_step(kernel, time_loop=plan.schedule == "resident"), seconds)
