"""Measures how fast the machine multiplies and copies, and models the least time that it needs for a time step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.cases import LayerCase
from benchmarks.contenders import Settings
from seqnets.kernels.report.roofline import BARRIER_CYCLES, GPU, LAUNCH_NS, SHARED_BYTES_PER_CLOCK, gpu
from seqnets.kernels.triton.planning.arch import arch_of

SIZE = 2048  # rows and columns of the matrices
COPIED = 1 << 26  # bytes; more than caches hold


def rates(settings: Settings) -> dict[str, Any]:
    """Return what `measure_rates` returns, measured in an isolated process."""
    command = [sys.executable, "-m", "benchmarks.machine", json.dumps(settings._asdict())]
    environment = os.environ | {"OMP_NUM_THREADS": str(settings.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout)


def measure_rates(settings: Settings) -> dict[str, Any]:
    """Measure what torch reaches in a large product of float32 matrices and in a large copy, as ceilings.

    Returns:
        ``gflops``, ``gbytes_per_second`` (read and written), and ``source``, which says how they were measured.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings.threads])
    torch.set_num_threads(settings.threads)
    torch.backends.fp32_precision = settings.precision  # type: ignore[attr-defined]
    a, b = torch.randn(2, SIZE, SIZE, device=settings.device).unbind()
    source = torch.zeros(COPIED, dtype=torch.int8, device=settings.device)
    target = torch.ones_like(source)
    return {
        "gflops": 2e-9 * SIZE**3 / _seconds(lambda: a @ b, settings.device),
        "gbytes_per_second": 2e-9 * COPIED / _seconds(lambda: target.copy_(source), settings.device),
        "source": (
            f"torch's product of float32 matrices of {SIZE} x {SIZE}, "
            f"and its copy of {COPIED >> 20} MiB, {settings.precision}"
        ),
    }


def _seconds(call: Callable[[], Any], device: str) -> float:
    """Return the least seconds of several calls, as a ceiling is what is reached undisturbed."""

    def once() -> float:
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    return min(once() for _ in range(8))


def chain_seconds(case: LayerCase, gates: int, device: str) -> float | None:
    """Return the least seconds from one time step to the next on a GPU, by the model of kernels/report/roofline.py.

    Either one multiprocessor reads the recurrent weight from its shared memory, with one barrier. Or all
    multiprocessors share the weight, and wait for each other as long as two kernels of a graph do.

    Returns None on a CPU, where no barrier lies between steps, and on a GPU of an unknown architecture.
    """
    if device != "cuda":
        return None
    arch = arch_of(torch.device("cuda"))
    if isinstance(arch, str):
        return None
    size = 4 if case.dtype == "fp32" else 2
    sheet: GPU = gpu(arch.name)
    one = gates * case.H * case.H * size / SHARED_BYTES_PER_CLOCK / sheet.clock + BARRIER_CYCLES / sheet.clock
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    fits = gates * case.H * case.H * size <= arch.shared_limit
    every = one / processors + LAUNCH_NS
    return 1e-9 * (min(one, every) if fits else every)


if __name__ == "__main__":
    print(json.dumps(measure_rates(Settings(**json.loads(sys.argv[1])))))
