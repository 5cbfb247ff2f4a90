"""Torch's own operations or the compiled kernels: which is faster on this CPU is measured, once for a shape, and kept on disk.

No rule would do: it depends on the shape, on the CPU and on the libraries that torch was built with.
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

from seqnets.backends import aten, cpp
from seqnets.backends.kernels import is_differentiated
from seqnets.cells.cell import find_cell
from seqnets.conditions import is_exporting
from seqnets.folders import cache_directory
from seqnets.forking import is_forked
from seqnets.kernels import store
from seqnets.kernels.cpp import openmp
from seqnets.kernels.isolation import apart
from seqnets.kernels.load import Load
from seqnets.kernels.timing import time_on_cpu
from seqnets.once import once
from seqnets.recurrence import Problem, Weights, autocast_dtype

log = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "SEQNETS_MEASURE"
LITTLE, MUCH = 2e6, 1e9  # multiplications and additions of a forward pass: microseconds of them; milliseconds
# Time steps: where there are more than a few, so many are run, and a quarter of them; times of other lengths lie on a line through both
FEW, MANY = 8, 128
SECONDS = 0.2  # of a measurement, or so
FORMAT = 3  # of what is kept: count up when measuring changes
BUSY = 0.1  # of all cores' time: where others take as much, times are kept for this process alone
PARITY = 0.97  # below this ratio of times torch's own is taken


class Shape(NamedTuple):
    """What a measurement is about. Sizes of the batch are rounded up, so that there are few, and large ones stand for larger."""

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
        """As short as a log wants it: ``"lstm of float32, T=32 B=64 I=256 H=256, bidirectional, with gradients"``."""
        sizes = f"{self.cell.rsplit(':', 1)[-1]} of {str(self.dtype).removeprefix('torch.')}, T={self.T} B={self.B} I={self.I} H={self.H}"
        of = {"bidirectional": self.directions == 2, "ragged": self.ragged, "with gradients": self.differentiated}
        layers = [f"{self.layers} layers"] if self.layers > 1 else []
        return ", ".join([sizes, *layers, *(name for name, holds in of.items() if holds)])


class Times(NamedTuple):
    aten: float  # milliseconds, at the length of the shape
    cpp: float
    ratio: float  # the median of those of neighbouring times
    clear: bool = True  # most of them say the same, on a quiet machine; else the verdict is for this process alone
    short: tuple[float, float] | None = None  # of both, at a quarter of the length

    def at(self, shape: Shape, T: int) -> Times:
        """Return the times at another length: a call has a constant part, and one that grows with the time steps."""
        if self.short is None or T == shape.T or not self.ratio:
            return self
        aten, cpp = (
            max(short / 4, long + max(0.0, long - short) / (shape.T - shape.T // 4) * (T - shape.T))
            for long, short in zip((self.aten, self.cpp), self.short, strict=True)
        )
        return self._replace(aten=aten, cpp=cpp, ratio=self.ratio * (aten / self.aten) / (cpp / self.cpp))

    def told(self, shape: Shape, T: int) -> str:
        """Say which is faster, as a clause."""
        if not self.ratio:
            return "torch has an operation of its own, and measuring which is faster failed; the log says how"
        where = f"at T={shape.T}, B={shape.B}"
        if self.short is None or T == shape.T:
            return f"{self.aten:.3g} ms by aten and {self.cpp:.3g} ms by cpp, measured on this machine {where}"
        there = self.at(shape, T)
        return (
            f"{there.aten:.3g} ms by aten and {there.cpp:.3g} ms by cpp for T={T}, from what was measured on this machine {where} and "
            f"T={shape.T // 4}"
        )


def why_slower(backend: ModuleType | Any, problem: Problem) -> str | None:
    """Why ``auto`` had better take the other one, as a clause; None for the faster one, and where there is no contest."""
    if backend not in (aten, cpp) or problem.x.device.type != "cpu" or problem.cell not in aten.OPERATIONS:
        return None
    winner: Any
    if torch.compiler.is_compiling():
        if is_exporting():
            return None  # cpp waits to be asked then
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
    """Multiplications and additions of a row in a time step."""
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
    """To a power of two."""
    return 1 << max(0, n - 1).bit_length()


@once
def measured(shape: Shape) -> Times | None:
    """Return the times of both, kept for the process, and on disk for this CPU, these versions and this source.

    None in a forked process if they are not known yet: timing ends OpenMP's threads, and after a fork that hangs.
    """
    return _read(shape) if is_forked() else _read_or_measure(shape)


def verdicts() -> list[dict[str, Any]]:
    """Return what this process has measured or read, as plain containers: for a checkpoint, so that its run keeps to it."""
    known = [(shape, times) for (shape,), times in measured.known.items() if times is not None]
    return [{**shape._asdict(), "dtype": str(shape.dtype), "times": list(times)} for shape, times in known]


def adopt(found: Any) -> None:
    """Take the verdicts of another process for this one, in place of measuring; those that cannot be read are left out."""
    try:
        for one in found:
            fields = {name: one[name] for name in Shape._fields} | {
                "dtype": getattr(torch, one["dtype"].rpartition(".")[2])
            }
            measured.known[Shape(**fields),] = _times(*one["times"])
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        log.warning("the choice of backends cannot be read (%s); it is made anew.", error)


def _times(aten: Any, cpp: Any, ratio: Any, clear: Any, short: Any) -> Times:
    """Return times that were written as JSON types."""
    if short is not None:
        short = float(short[0]), float(short[1])
    return Times(float(aten), float(cpp), float(ratio), bool(clear), short)


def _read(shape: Shape) -> Times | None:
    return store.read("race", _key(shape), lambda value: _times(**value))


def _key(shape: Shape) -> dict[str, Any]:
    from seqnets.kernels.cpp.library import Library, library

    own = library(find_cell(shape.cell), shape.dtype)
    assert isinstance(own, Library)
    return {**shape._asdict(), "library": own.key, "torch": torch.__version__, "format": FORMAT}


def _read_or_measure(shape: Shape) -> Times:
    # times of processes that start together would be each other's
    with store.locked(cache_directory() / "kernels" / "race.lock", 60):
        known = _read(shape)
        if known is None:
            log.info("timing aten and cpp, once: %s", shape)
            try:
                openmp.release()  # those of this thread, or they would count with those of the one that measures
                known = apart(_measure, shape)
            except Exception:  # no reason to fail the caller, who did not ask for it
                log.warning("aten and cpp could not be timed for %s.", shape, exc_info=True)
                return Times(0, 0, 0)
            if known.clear:
                store.write("race", _key(shape), known._asdict())
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
    """Tell whether most of the turns say the same."""
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
    """And what gradients are taken of."""
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
