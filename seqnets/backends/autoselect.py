"""Measures whether torch's own operations or the compiled C++ kernels are faster on this CPU.

This selects the backend for ``auto``. Each shape is measured once, and the result is kept on disk. A fixed rule would
not do, because the result depends on the shape, on the CPU and on the libraries that torch was built with.
"""

from __future__ import annotations

import logging
import math
import os
import statistics
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets import forking
from seqnets.backends import aten, cpp
from seqnets.backends.kernels import is_differentiated
from seqnets.cells.registry import find_cell
from seqnets.conditions import is_exporting
from seqnets.folders import cache_directory
from seqnets.kernels import store
from seqnets.kernels.cpp import openmp
from seqnets.kernels.isolation import isolated
from seqnets.kernels.load import Load
from seqnets.kernels.timing import time_on_cpu
from seqnets.once import once
from seqnets.recurrence import Problem, Weights, autocast_dtype

log = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "SEQNETS_MEASURE"
# Multiplications and additions of a forward pass. Below LITTLE (microseconds) nothing is measured; above MUCH
# (milliseconds) a smaller problem is measured instead.
LITTLE, MUCH = 2e6, 1e9
# Time steps. A problem with more than FEW is measured at MANY (fewer if that exceeds MUCH) and at a quarter of that.
# Times of other lengths are read off the line through both.
FEW, MANY = 8, 128
SECONDS = 0.2  # approximate duration of a measurement
FORMAT = 3  # version of the stored results; increase it when the method of measuring changes
BUSY = 0.1  # share of all cores' time: if other processes take more, times are kept for this process alone
PARITY = 0.97  # if the time of aten divided by that of cpp is below this, aten is taken

adopted = 0  # how often verdicts were taken from elsewhere: older choices of the dispatch must be made anew


class Shape(NamedTuple):
    """Identifies a measurement.

    T and B are rounded up so that few shapes need measuring, and are limited so that a smaller problem stands for a
    large one.
    """

    cell: str
    dtype: torch.dtype
    T: int
    B: int
    I: int
    H: int
    layers: int
    directions: int
    bias: bool
    ragged: bool
    differentiated: bool
    input_differentiated: bool
    threads: int

    def __str__(self) -> str:
        """Format it briefly for logs: ``"lstm of float32, T=32 B=64 I=256 H=256, bidirectional, with gradients"``."""
        sizes = (
            f"{self.cell.rsplit(':', 1)[-1]} of {str(self.dtype).removeprefix('torch.')}, "
            f"T={self.T} B={self.B} I={self.I} H={self.H}"
        )
        of = {"bidirectional": self.directions == 2, "ragged": self.ragged, "with gradients": self.differentiated}
        layers = [f"{self.layers} layers"] if self.layers > 1 else []
        return ", ".join([sizes, *layers, *(name for name, holds in of.items() if holds)])


class Times(NamedTuple):
    aten: float  # milliseconds, at the length of the shape
    cpp: float  # milliseconds
    ratio: float  # median of aten / cpp over turns that time both, one after the other; 0 if timing failed
    clear: bool = True  # whether most turns agree and the machine was quiet; else only this process keeps them
    short: tuple[float, float] | None = None  # milliseconds of aten and cpp at a quarter of the length

    def at(self, shape: Shape, T: int) -> Times:
        """Estimate the times at another length: a call has a constant part, and one that grows with the time steps."""
        if self.short is None or T == shape.T or not self.ratio:
            return self
        aten, cpp = (
            max(short / 4, long + max(0.0, long - short) / (shape.T - shape.T // 4) * (T - shape.T))
            for long, short in zip((self.aten, self.cpp), self.short, strict=True)
        )
        return self._replace(aten=aten, cpp=cpp, ratio=self.ratio * (aten / self.aten) / (cpp / self.cpp))

    def told(self, shape: Shape, T: int) -> str:
        """Return a clause that compares both times at length T."""
        if not self.ratio:
            return "torch has an operation of its own, and measuring which is faster failed; the log says how"
        where = f"at T={shape.T}, B={shape.B}"
        if self.short is None or T == shape.T:
            return f"{self.aten:.3g} ms by aten and {self.cpp:.3g} ms by cpp, measured on this machine {where}"
        there = self.at(shape, T)
        return (
            f"{there.aten:.3g} ms by aten and {there.cpp:.3g} ms by cpp for T={T}, "
            f"from what was measured on this machine {where} and T={shape.T // 4}"
        )


def why_slower(backend: ModuleType | Any, problem: Problem) -> str | None:
    """Return why ``auto`` should prefer the competing backend, as a clause, or None.

    None is returned for the faster one, where the two do not compete, and where the faster one cannot serve.
    """
    if backend not in (aten, cpp) or problem.x.device.type != "cpu" or problem.cell not in aten.OPERATIONS:
        return None
    winner: Any
    if torch.compiler.is_compiling():
        if is_exporting():
            return None  # cpp runs only on request then
        winner, why = cpp, "torch.compile unrolls torch's operation over time, which takes long to compile and is slow"
    elif unmeasurable := _why_not_measured(problem):
        winner, why = aten, f"torch has an operation of its own, and {unmeasurable}"
    else:
        if aten.why_not(problem) or cpp.why_not(problem):
            return None
        shape = shape_of(problem)
        times = measured(shape)
        if times is None:
            winner, why = aten, "torch has an operation of its own, and in a forked process nothing is timed"
        else:
            T = problem.x.shape[0]
            winner, why = cpp if times.at(shape, T).ratio >= PARITY else aten, times.told(shape, T)
    return None if winner is backend or winner.why_not(problem) else why


def _why_not_measured(problem: Problem) -> str | None:
    if os.environ.get(ENVIRONMENT_VARIABLE, "").lower() in ("0", "false", "off", "no"):
        return f"{ENVIRONMENT_VARIABLE}=0 forbids to measure which is faster"
    if torch.are_deterministic_algorithms_enabled():
        return "where deterministic algorithms are asked for, times must not decide, as they are never twice the same"
    T, B, _ = sizes = problem.x.shape
    if any(type(size) is not int for size in sizes):
        return "while a graph is traced there is nothing to measure"
    if T * B * _work(problem) < LITTLE:
        return "the work is too little to measure which is faster"
    return None


def _work(problem: Problem) -> int:
    """Return the number of multiplications and additions in all layers, for one row and one time step."""
    return 2 * sum(
        math.prod(w.weight_ih.shape) + math.prod(w.weight_hh.shape) for layer in problem.layers for w in layer
    )


def shape_of(problem: Problem) -> Shape:
    (T, B, I), first = problem.x.shape, problem.layers[0][0]
    T, B = MANY if T > FEW else _rounded_up(T), _rounded_up(B)
    while T * B * _work(problem) > MUCH and (T > 2 or B > 16):
        T, B = (T // 2, B) if T > FEW or B <= 16 else (T, B // 2)
    return Shape(
        problem.cell.key, autocast_dtype(problem.x) or problem.x.dtype, T, B, I,
        problem.state[-1].shape[-1], len(problem.layers), len(problem.layers[0]), first.bias_ih is not None,
        problem.lengths is not None, is_differentiated(problem), problem.x.requires_grad, torch.get_num_threads(),
    )  # fmt: skip


def _rounded_up(n: int) -> int:
    """Round up to a power of two."""
    return 1 << max(0, n - 1).bit_length()


@once
def measured(shape: Shape) -> Times | None:
    """Return the times of both backends, measured if they are not known yet.

    They are cached in this process, and on disk for this CPU, these versions and this source. In a forked process,
    return None if they are not known yet: timing ends OpenMP's threads, which hangs after a fork.
    """
    return _read(shape) if forking.forked else _read_or_measure(shape)


def verdicts() -> list[dict[str, Any]]:
    """Return all times that this process has measured or read, as plain containers.

    A checkpoint stores them, so that the resumed run keeps its choice of backends.
    """
    known = [(shape, times) for (shape,), times in measured.known.items() if times is not None]
    return [{**shape._asdict(), "dtype": str(shape.dtype), "times": list(times)} for shape, times in known]


def adopt(found: Any) -> None:
    """Use the `verdicts` of another process here instead of measuring.

    Entries that cannot be read are ignored with a warning.
    """
    global adopted
    adopted += 1
    for one in found if isinstance(found, list) else [found]:
        try:
            dtype = getattr(torch, one["dtype"].rpartition(".")[2])
            shape = Shape(**{name: one[name] for name in Shape._fields} | {"dtype": dtype})
            measured.known[shape,] = _times(*one["times"])
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            log.warning("the choice of backends cannot be read (%s); it is made anew.", error)


def _times(aten: Any, cpp: Any, ratio: Any, clear: Any, short: Any) -> Times:
    """Convert values that were stored as JSON types to `Times`."""
    if short is not None:
        short_aten, short_cpp = map(float, short)
        short = short_aten, short_cpp
    return Times(float(aten), float(cpp), float(ratio), bool(clear), short)


def _read(shape: Shape) -> Times | None:
    return store.read("autoselect", _key(shape), lambda value: _times(**value))


def _key(shape: Shape) -> dict[str, Any]:
    from seqnets.kernels.cpp.library import Library, library

    own = library(find_cell(shape.cell), shape.dtype)
    assert isinstance(own, Library)
    return {**shape._asdict(), "library": own.key, "torch": torch.__version__, "format": FORMAT}


def _read_or_measure(shape: Shape) -> Times:
    # locked, because processes that start together would disturb each other's times
    with store.locked(cache_directory() / "kernels" / "autoselect.lock", 60):
        known = _read(shape)
        if known is None:
            log.info("timing aten and cpp, once: %s", shape)
            try:
                openmp.release()  # this thread's OpenMP threads, which would compete with the measuring thread's
                known = isolated(_measure, shape)
            except Exception:  # the caller did not ask for a measurement, so it must not fail
                log.warning("aten and cpp could not be timed for %s.", shape, exc_info=True)
                return Times(0, 0, 0)
            if known.clear:
                store.write("autoselect", _key(shape), known._asdict())
    return known


def _measure(shape: Shape) -> Times:
    torch.set_num_threads(shape.threads)
    load = Load()
    long, short = _turns(shape), None
    ratios = [[a / b for a, b in zip(long[aten], long[cpp], strict=True)]]
    if shape.T > FEW:
        turns = _turns(shape._replace(T=shape.T // 4))
        short = statistics.median(turns[aten]), statistics.median(turns[cpp])
        ratios.append([a / b for a, b in zip(turns[aten], turns[cpp], strict=True)])
    clear = all(map(_is_clear, ratios)) and load.of_others() < BUSY
    aten_ms, cpp_ms = statistics.median(long[aten]), statistics.median(long[cpp])
    return Times(aten_ms, cpp_ms, statistics.median(ratios[0]), clear, short)


def _is_clear(ratios: list[float]) -> bool:
    """Tell whether at least three quarters of the turns agree with the median on the winner."""
    winner = statistics.median(ratios) >= PARITY
    return sum((each >= PARITY) == winner for each in ratios) >= 0.75 * len(ratios)


def _turns(shape: Shape) -> dict[Any, list[float]]:
    problem, leaves = _random_problem(shape)
    d_y = torch.ones(shape.T, shape.B, shape.H * shape.directions, dtype=shape.dtype)

    def run(backend: Any) -> None:
        with torch.set_grad_enabled(shape.differentiated):
            y = backend.run(problem).y
        if shape.differentiated:
            torch.autograd.grad(y, leaves, d_y)

    return time_on_cpu({backend: partial(run, backend) for backend in (aten, cpp)}, SECONDS)


def _random_problem(shape: Shape) -> tuple[Problem, list[Tensor]]:
    """Return a random problem of this shape, and the tensors to differentiate with respect to."""
    cell, generator = find_cell(shape.cell), torch.Generator().manual_seed(0)
    leaves: list[Tensor] = []

    def drawn(*sizes: int, differentiated: bool) -> Tensor:
        tensor = torch.randn(sizes, generator=generator, dtype=torch.float32).mul_(sizes[-1] ** -0.5).to(shape.dtype)
        if differentiated:
            leaves.append(tensor.requires_grad_())
        return tensor

    def weights(inputs: int) -> Weights:
        own = partial(drawn, cell.gates * shape.H, differentiated=shape.differentiated)
        return Weights(own(inputs), own(shape.H), own() if shape.bias else None, own() if shape.bias else None)

    x = drawn(shape.T, shape.B, shape.I, differentiated=shape.differentiated and shape.input_differentiated)
    inputs = [shape.I] + [shape.H * shape.directions] * (shape.layers - 1)
    layers = tuple(tuple(weights(size) for _ in range(shape.directions)) for size in inputs)
    state = tuple(
        torch.zeros(shape.layers * shape.directions, shape.B, shape.H, dtype=shape.dtype) for _ in cell.states
    )
    lengths = torch.linspace(1, shape.T, shape.B).long() if shape.ragged else None
    return Problem(cell, x, state, layers, lengths), leaves
