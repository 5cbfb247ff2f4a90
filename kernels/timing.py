"""Times. Competitors run in turns, so that whatever else slows the machine meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch

K = TypeVar("K", bound=Hashable)

# Runs each competitor several times, and returns the milliseconds that each took, turn by turn.
Timer = Callable[[Mapping[K, Callable[[], Any]]], dict[K, list[float]]]

STEPS, BATCH = 256, 64  # T and B of what is timed, unless told
WARM_UP, TURNS = 3, 20


def time_on_gpu(competitors: Mapping[K, Callable[[], Any]]) -> dict[K, list[float]]:
    """By the clock of the current GPU, from the moment the host begins to launch: gaps between launches count."""
    for run in competitors.values():
        for _ in range(WARM_UP):
            run()
    times: dict[K, list[float]] = {name: [] for name in competitors}
    for _ in range(TURNS):
        for name, run in competitors.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            run()
            end.record()
            end.synchronize()
            times[name].append(start.elapsed_time(end))
    return times


def time_on_cpu(competitors: Mapping[K, Callable[[], Any]], seconds: float = 0.3) -> dict[K, list[float]]:
    """In that time, and three turns; or one, where a call takes as long. A turn is as many calls as take a while: one alone would be
    timed with the caches, and the threads, as the competitor leaves them.
    """
    most, turn = 1e3 * seconds, 1e3 * seconds / 20
    once = {name: _milliseconds(run, 1) for name, run in competitors.items()}
    for name, run in competitors.items():
        if once[name] < most:  # else it is warm by now
            once[name] = _milliseconds(run, WARM_UP)
    calls = {name: max(1, int(turn / took)) for name, took in once.items()}
    least = 3 if max(once.values()) < most else 1
    times: dict[K, list[float]] = {name: [] for name in competitors}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or any(len(turns) < least for turns in times.values()):
        for name, run in competitors.items():
            times[name].append(_milliseconds(run, calls[name]))
    return times


def _milliseconds(run: Callable[[], Any], calls: int) -> float:
    """Of one call, among so many."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return 1e3 * (time.perf_counter() - start) / calls
