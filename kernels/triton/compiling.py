"""Compiles kernels before they are needed, in parallel processes; Triton's launcher then finds them in its cache."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget

from seqnets.cells import Cell
from seqnets.cores import cores
from seqnets.kernels.triton.ahead_of_time import compile_ahead, is_compiled, target_of
from seqnets.kernels.triton.cases import Case, cases_of, first_launch
from seqnets.kernels.triton.planning.arch import Arch, arch_of
from seqnets.kernels.triton.planning.plan import Plan
from seqnets.kernels.triton.planning.select import demand_of, find_plan_on
from seqnets.kernels.triton.trial import Variant

# Measured for one kernel and for the start of the processes, on two shared cores: cells of up to 4 gates, H=128
SECONDS, SECONDS_TO_START = 2.0, 5.0
BROKEN = (
    "a process that compiles was ended from outside, crashed, or could not import the script that started it, "
    "which must do so below if __name__ == '__main__'"
)


class Place(NamedTuple):
    """Describes a GPU that kernels are compiled for."""

    arch: Arch  # the architecture whose plans it uses
    target: GPUTarget
    device: torch.device | None = None  # None if it is not in this machine


class Request(NamedTuple):
    """Describes one kernel to compile."""

    cell: Cell
    case: Case
    plan: Plan
    place: Place

    def __str__(self) -> str:
        case, plan = self.case, self.plan
        kept = (
            "backward" if case.backward else "forward" if case.kept and not case.recompute else "forward, keeping less"
        )
        sizes = f"H={case.units * case.heads}" + f" in {case.heads} heads" * (case.heads > 1)
        dtype = str(case.dtype).removeprefix("torch.") + f" {plan.precision}" * (case.dtype is torch.float32)
        ways = " bidirectional" * (case.directions > 1) + " ragged" * case.ragged
        return f"{self.cell.name} {sizes} {dtype} {plan.schedule}{ways}, {self.place.arch.name}: {kept}"


class Refused(NamedTuple):
    """Describes a variant that the capacity rule has no plan for."""

    cell: Cell
    variant: Variant
    schedule: str | None
    why: str  # a clause

    def __str__(self) -> str:
        variant, schedule = self.variant, f" {self.schedule}" * (self.schedule is not None)
        dtype = str(variant.dtype).removeprefix("torch.")
        return f"{self.cell.name} H={variant.U * variant.N} {dtype}{schedule}: {self.why}"


class Outcome(NamedTuple):
    request: Request
    seconds: float = 0.0  # of compilation, as measured in the process that compiled
    cached: bool = False  # whether it was compiled before
    failure: str | None = None


def place_of(arch: Arch) -> Place:
    """Return the place for an architecture, whose GPU need not be in this machine."""
    return Place(arch, target_of(arch))


def place_here(device: torch.device) -> Place | str:
    """Return the place for a device of this machine, or a clause that says why no kernel serves it."""
    arch = arch_of(device)
    return arch if isinstance(arch, str) else Place(arch, triton.runtime.driver.active.get_current_target(), device)


def plan_variant(
    cell: Cell, variant: Variant, place: Place, schedule: str | None = None, precision: str | None = None
) -> list[Request] | Refused:
    """Plan the kernels of a variant as layers on that GPU would.

    Args:
        cell: the cell whose kernels are planned.
        variant: the call of a layer.
        place: the GPU.
        schedule: the schedule to use; by default the capacity rule chooses.
        precision: the precision of float32 products, ``"ieee"`` or ``"tf32"``; by default torch's setting.

    Returns:
        One request per kernel, or the refusal if a pass has no plan.
    """
    plans: list[Plan] = []
    for backward in (False, True)[: 1 + variant.differentiated]:
        demand = demand_of(cell, variant.U, variant.N, variant.dtype, backward)
        if precision is not None and variant.dtype is torch.float32:
            demand = demand._replace(precision=precision)
        plan = find_plan_on(place.arch, place.device, cell, demand, schedule)
        if isinstance(plan, str):
            return Refused(cell, variant, schedule, plan)
        plans.append(plan)
    return [Request(cell, case, plans[case.backward], place) for case in cases_of(cell, variant)]


def missing(requests: Iterable[Request]) -> list[Request]:
    """Return the requests that are not in Triton's cache, without duplicates."""
    return [request for request in dict.fromkeys(requests) if not _is_compiled(request)]


def compile_all(
    requests: Iterable[Request], jobs: int | None = None, done: Callable[[Outcome], None] = lambda outcome: None
) -> list[Outcome]:
    """Compile each kernel once, unless Triton's cache has it. An interrupt ends the processes.

    Args:
        requests: the kernels.
        jobs: the number of processes; by default one for each core that this process may use.
        done: called with each outcome as it comes, except for kernels that the cache had.

    Returns:
        One outcome per distinct request, in their order.
    """
    wanted = list(dict.fromkeys(requests))
    found = {request: Outcome(request, cached=True) for request in wanted}
    absent = missing(wanted)
    for outcome in _compile_absent(absent, min(jobs or cores(), len(absent))):
        found[outcome.request] = outcome
        done(outcome)
    return list(found.values())


def seconds_of(kernels: int, jobs: int | None = None) -> float:
    """Estimate how many seconds that many kernels take to compile."""
    return SECONDS_TO_START + SECONDS * kernels / min(jobs or cores(), kernels) if kernels else 0.0


def _compile_absent(requests: list[Request], jobs: int) -> Iterator[Outcome]:
    if not requests:
        return
    others = set(multiprocessing.active_children())
    # spawned, because a fork of a process that uses a GPU or threads, as torch does, does not work
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin)
    futures: dict[Future[float], Request] = {}
    # the longest first, so that it does not run alone at the end
    by_size = sorted(requests, key=lambda request: (request.case.backward, request.case.units), reverse=True)
    try:
        try:
            for request in by_size:
                futures[pool.submit(compile_one, request)] = request
        except BrokenProcessPool:
            yield from (Outcome(request, failure=BROKEN) for request in by_size[len(futures) :])
        for future in as_completed(futures):
            request = futures[future]
            try:
                yield Outcome(request, future.result())
            except BrokenProcessPool:
                yield Outcome(request, failure=BROKEN)
            except Exception as error:  # whatever the compiler raises
                reason = str(error).partition("\n")[0]
                yield Outcome(request, failure=f"{type(error).__name__}: {reason}")
        pool.shutdown()
    finally:  # all processes have ended, or must end now
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()


def _begin() -> None:
    """Set up a process that compiles.

    It leaves interrupts to its parent, ends when the parent ends, and sends what modules print to stderr.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(sys.stderr.fileno(), 1)
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """End this process when its parent has ended, however that happened: a killed parent notifies nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _is_compiled(request: Request) -> bool:
    return is_compiled(first_launch(request.cell, request.case, request.plan), request.place.target)


def compile_one(request: Request) -> float:
    """Compile a kernel in this process, and return the seconds that it took."""
    start = time.perf_counter()
    kernel = compile_ahead(first_launch(request.cell, request.case, request.plan), request.place.target)
    if request.place.device is not None:  # some versions of Triton compile a launcher too, in C
        triton.runtime.driver.active.launcher_cls(kernel.src, kernel.metadata)
    return time.perf_counter() - start
