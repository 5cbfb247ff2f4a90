"""What the doctor does before its checks: the kernels that it will need are listed, and how long all takes is estimated."""

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

# Of one check: in the interpreter and in C++, and of what C++ compiles for a cell and dtype, as they took on two cores that others
# shared; on a GPU an assumption.
SECONDS = {"cpu": 2.0, CPP: 2.0, "cuda": 1.5}
SECONDS_TO_COMPILE_CPP = 8.0


def absent_kernels(cases: Sequence[Case], device: torch.device) -> list[Request]:
    """The kernels that checks and timings on a GPU launch, and that Triton's cache does not have."""
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
        except CellError:  # as its check will say
            continue
    return missing(requests)


def seconds_of(cases: Sequence[Case], device: torch.device, absent: int) -> float:
    """About how long the checks take, when so many of their Triton kernels are to be compiled first."""
    seconds = sum(SECONDS[CPP if case.schedule == CPP else device.type] for case in cases)
    in_cpp = {(case.cell, case.dtype) for case in cases if case.schedule == CPP and case.dtype in cpp.DTYPES}
    seconds += SECONDS_TO_COMPILE_CPP * sum(not is_compiled(cell, dtype) for cell, dtype in in_cpp)
    if absent:
        from seqnets.kernels.triton import compiling

        seconds += compiling.seconds_of(absent)
    return seconds
