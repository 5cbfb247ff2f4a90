"""Checks the kernels for one cell, dtype, hidden size, schedule (of the Triton kernels, or ``cpp``) and pass."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import torch

from seqnets.backends import aten, cpp
from seqnets.cells import Cell
from seqnets.errors import CellError
from seqnets.kernels.availability import why_unavailable
from seqnets.kernels.cpp import first_use
from seqnets.kernels.cpp.build import find_compiler
from seqnets.kernels.cpp.library import library
from seqnets.kernels.cpp.printed import printed
from seqnets.kernels.report.compilations import Compilation, watch_compilations
from seqnets.kernels.timing import BATCH, STEPS, Timer, time_on_cpu, time_on_gpu
from seqnets.kernels.triton.agreement import variants, worst_error
from seqnets.kernels.triton.module import generate
from seqnets.kernels.triton.planning.select import use_schedule, why_no_plan
from seqnets.layers import Recurrent
from seqnets.masks import Mask
from seqnets.tolerance import Error

CPP = "cpp"


class Case(NamedTuple):
    cell: Cell
    dtype: torch.dtype
    hidden: int
    schedule: str
    backward: bool  # whether gradients are checked too


class Check(NamedTuple):
    """Holds the result of checking one case."""

    case: Case
    why_not: str | None = None  # why the kernels do not serve the case
    crash: str | None = None
    worst: Error | None = None
    compiled: tuple[Compilation, ...] = ()
    milliseconds: float | None = None  # of forward, or of forward and backward if the case is backward
    torch_milliseconds: float | None = None
    unjudged: str | None = None  # why the result cannot be compared

    @property
    def result(self) -> str:
        if self.why_not is not None:
            return "not served"
        if self.unjudged is not None:
            return "not judged"
        if self.worst is None:
            return "crashed"
        return "agrees" if self.worst.ratio <= 1 else "disagrees"

    @property
    def reason(self) -> str | None:
        return self.why_not or self.crash or self.unjudged

    def as_dict(self) -> dict[str, Any]:
        """Return the check in JSON types, with None for errors that are not finite."""
        case, worst = self.case, self.worst
        return {
            "cell": case.cell.name,
            "dtype": str(case.dtype).removeprefix("torch."),
            "hidden": case.hidden,
            "schedule": case.schedule,
            "pass": "backward" if case.backward else "forward",
            "result": self.result,
            "reason": self.reason,
            "worst": worst and worst.what,
            "error": worst and _finite(worst.error),
            "allowed": worst and _finite(worst.allowed),
            "error_over_allowed": worst and _finite(worst.ratio),
            "milliseconds": self.milliseconds,
            "torch_milliseconds": self.torch_milliseconds,
            "compiled": [compilation._asdict() for compilation in self.compiled],
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no infinity or NaN


def check(case: Case, device: torch.device) -> Check:
    """Check a case, and time it if its kernels are compiled: those of Triton on a GPU, those in C++ on the CPU.

    An exception is not raised, but recorded as a crash.
    """
    compiled: list[Compilation] = []
    try:
        with redirect_stdout(sys.stderr):  # a step may print
            if case.schedule == CPP:
                return _check_cpp(case)
            with use_schedule(case.schedule):
                return _check_triton(case, device, compiled)
    except Exception as error:  # the user wants to see any error, for each case
        return Check(case, crash=f"{type(error).__name__}: {error}", compiled=tuple(compiled))


def _check_triton(case: Case, device: torch.device, compiled: list[Compilation]) -> Check:
    cell, dtype, hidden, _, backward = case
    why = _why_not(case, device)
    if why is not None:
        return Check(case, why)
    with watch_compilations(compiled):
        worst = worst_error(cell, variants(cell, 1, hidden, dtype, backward), device)
        times = time_layers(case, device, "triton", time_on_gpu) if device.type == "cuda" else {}
    return Check(case, None, None, worst, tuple(compiled), times.get("triton"), times.get("aten"))


def _check_cpp(case: Case) -> Check:
    cell, dtype, hidden, _, backward = case
    if dtype not in cpp.DTYPES:
        return Check(case, f"its kernels on the CPU do not compute in {dtype}")
    try:
        printed(cell)
    except CellError as error:
        return Check(case, str(error))
    found = library(cell, dtype)
    if isinstance(found, str):
        return Check(case, found) if find_compiler() is None else Check(case, crash=found)
    worst = first_use.worst_error(cell, dtype, hidden, backward)
    kinks = "its step has kinks, which rounding to bfloat16 may cross: float32 stands for this"
    times = time_layers(case, torch.device("cpu"), CPP, time_on_cpu)
    return Check(case, None, None, worst, (), times[CPP], times.get("aten"), kinks if worst is None else None)


def _why_not(case: Case, device: torch.device) -> str | None:
    cell, dtype, hidden, _, backward = case
    unavailable = why_unavailable(device.type)
    if unavailable is not None:
        return unavailable
    try:
        generate(cell)
    except CellError as error:
        return str(error)
    passes = (False, True) if backward else (False,)
    reasons = (why_no_plan(cell, hidden, 1, dtype, device, each) for each in passes)
    return next((why for why in reasons if why is not None), None)


def time_layers(case: Case, device: torch.device, own: str, timer: Timer[str]) -> dict[str, float]:
    """Return the median time of a layer in milliseconds, by backend.

    The backends are `own`, and ``aten`` (cuDNN on a GPU) if torch has the cell. With a backward case, a call includes
    the backward pass.
    """
    cell, dtype, hidden, _, backward = case
    masks = {name: Mask(0.1) for name in cell.masks}
    layer = Recurrent(cell, hidden, hidden, masks=masks, device=device, dtype=dtype)
    x = torch.randn(STEPS, BATCH, hidden, device=device, dtype=dtype, requires_grad=backward)
    d_y = torch.randn_like(x)

    def competitor(backend: str) -> Callable[[], Any]:
        def run() -> None:
            layer.backend = backend
            with torch.set_grad_enabled(backward):
                y, _ = layer(x)
                if backward:
                    torch.autograd.grad(y, [x, *layer.parameters()], d_y, allow_unused=True)

        return run

    backends = [own, "aten"] if cell in aten.OPERATIONS else [own]
    times = timer({backend: competitor(backend) for backend in backends})
    return {backend: statistics.median(turns) for backend, turns in times.items()}
