"""How fast the machine multiplies and copies, and what is the least that it needs for a time step."""

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

SIZE = 2048  # of the matrices
COPIED = 1 << 26  # bytes, more than caches hold


def rates(settings: Settings) -> dict[str, Any]:
    """As `measure_rates`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.machine", json.dumps(settings._asdict())]
    environment = os.environ | {"OMP_NUM_THREADS": str(settings.threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout)


def measure_rates(settings: Settings) -> dict[str, Any]:
    """What torch reaches here in a large product of float32 matrices and in a large copy: ceilings to compare with."""
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
        "source": f"torch's product of float32 matrices of {SIZE} x {SIZE}, and its copy of {COPIED >> 20} MiB, {settings.precision}",
    }


def _seconds(call: Callable[[], Any], device: str) -> float:
    """The least of several: a ceiling is what is reached undisturbed."""

    def once() -> float:
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    return min(once() for _ in range(8))


def chain_seconds(case: LayerCase, gates: int, device: str) -> float | None:
    """The least that a GPU needs from one time step to the next, by the model of kernels/report/roofline.py; None on a CPU,
    where no barrier lies between steps.

    Either one multiprocessor reads the recurrent weight from its shared memory, with one barrier; or all share it, and wait for
    each other as long as kernels of a graph do.
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
