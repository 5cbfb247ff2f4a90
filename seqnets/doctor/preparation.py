"""Prepares the doctor's checks: lists the kernels that they need, and estimates how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from seqnets.backends import cpp
from seqnets.doctor.checks import CPP, Case
from seqnets.errors import CellError
from seqnets.kernels.availability import why_unavailable
from seqnets.kernels.cpp.library import is_compiled
from seqnets.kernels.triton.agreement import variants

if TYPE_CHECKING:
    from seqnets.kernels.triton.compiling import Request

# Seconds for one check, in the interpreter and in C++, and for compiling the C++ of one cell and dtype. They were
# measured on two cores that were shared with others. The value for a GPU is an assumption.
SECONDS = {"cpu": 2.0, CPP: 2.0, "cuda": 1.5}
SECONDS_TO_COMPILE_CPP = 8.0


def absent_kernels(cases: Sequence[Case], device: torch.device) -> list[Request]:
    """List the Triton kernels that the checks and timings launch on a GPU and that Triton's cache lacks.

    The list is empty if no Triton kernels can run on a GPU here.
    """
    if device.type != "cuda" or why_unavailable("cuda") is not None:
        return []
    from seqnets.kernels.triton.compiling import missing, place_here, plan_variant

    place = place_here(device)
    if isinstance(place, str):
        return []
    requests: list[Request] = []
    for case in cases:
        if case.schedule == CPP:
            continue
        try:
            for variant in variants(case.cell, 1, case.hidden, case.dtype, case.backward):
                planned = plan_variant(case.cell, variant, place, case.schedule)
                requests += planned if isinstance(planned, list) else []
        except CellError:  # its check will report it
            continue
    return missing(requests)


def seconds_of(cases: Sequence[Case], device: torch.device, absent: int) -> float:
    """Estimate how many seconds the checks take, including compilation.

    Args:
        cases: the checks.
        device: the device of the checks that do not use C++.
        absent: the number of Triton kernels that must be compiled first.
    """
    seconds = sum(SECONDS[CPP if case.schedule == CPP else device.type] for case in cases)
    in_cpp = {(case.cell, case.dtype) for case in cases if case.schedule == CPP and case.dtype in cpp.DTYPES}
    seconds += SECONDS_TO_COMPILE_CPP * sum(not is_compiled(cell, dtype) for cell, dtype in in_cpp)
    if absent:
        from seqnets.kernels.triton import compiling

        seconds += compiling.seconds_of(absent)
    return seconds
