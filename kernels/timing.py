"""Times functions against each other, in turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch

K = TypeVar("K", bound=Hashable)

# Runs each competitor several times, and returns for each the milliseconds of one call in every turn.
Timer = Callable[[Mapping[K, Callable[[], Any]]], dict[K, list[float]]]

STEPS, BATCH = 256, 64  # default T and B of what is timed
WARM_UP, TURNS = 3, 20


def time_on_gpu(competitors: Mapping[K, Callable[[], Any]]) -> dict[K, list[float]]:
    """Time competitors with CUDA events on the current GPU, once per turn.

    The time starts when the host begins to launch, so gaps between launches count.

    Returns:
        For each competitor, the milliseconds of each of the `TURNS` turns.
    """
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
    """Time competitors on the CPU in turns, for `seconds` in all and at least three turns each.

    One turn each is enough if a single call takes `seconds` or longer. A turn is a series of calls of about a twentieth
    of `seconds`: a single call would start with the caches and threads as the previous competitor left them.

    Returns:
        For each competitor, the mean milliseconds of one call in each turn.
    """
    most, turn = 1e3 * seconds, 1e3 * seconds / 20
    once = {name: _milliseconds(run, 1) for name, run in competitors.items()}
    for name, run in competitors.items():
        if once[name] < most:  # otherwise the first call was long enough to warm up
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
    """Return the mean time of one call in milliseconds, over `calls` calls."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return 1e3 * (time.perf_counter() - start) / calls
