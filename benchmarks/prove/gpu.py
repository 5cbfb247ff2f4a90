"""Tells whether anything can be proven on this machine's GPU, and describes the GPU to readers of the results."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import torch

import seqnets
from benchmarks.cuda import clocks, driver_version
from seqnets.cores import cores
from seqnets.errors import BackendError
from seqnets.kernels import store
from seqnets.kernels.availability import why_unavailable
from seqnets.kernels.triton.planning.arch import arch_of
from seqnets.source import commit, digest

MEMORY_OF_A_PROCESS = 700 << 20  # bytes: its context, cuBLAS and cuDNN
ROOT = Path(__file__).parents[2]


def refuse(jobs: int) -> None:
    """Raise unless a proof can run here in `jobs` processes.

    Raises:
        BackendError: It cannot run; the message says why, and what to do.
    """
    if not torch.cuda.is_available():
        raise BackendError(
            f"there is no GPU here (torch.cuda.is_available() is false; torch is {torch.__version__}), "
            "so nothing can be proven; --dry rehearses without one"
        )
    unavailable = why_unavailable("cuda")
    if unavailable is not None:
        raise BackendError(f"the kernels cannot run here: {unavailable}")
    arch = arch_of(torch.device("cuda"))
    if isinstance(arch, str):
        raise BackendError(f"the kernels cannot run here: {arch}")
    free, total = torch.cuda.mem_get_info()
    needed = (jobs + 1) * MEMORY_OF_A_PROCESS
    if free < needed:
        raise BackendError(
            f"{free / 2**30:.1f} of {total / 2**30:.0f} GiB of the GPU's memory are free, and {jobs} processes take "
            f"{needed / 2**30:.1f}: take fewer (--jobs), or end what holds it (nvidia-smi shows which process does)"
        )


def environment() -> dict[str, Any]:
    """Return the GPU, the versions and the source in JSON types. With the stub installed, the GPU is the stub."""
    properties = torch.cuda.get_device_properties(0)
    known = store.environment(torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))
    free, total = torch.cuda.mem_get_info()
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(total / 2**30, 1),
        "free_gib": round(free / 2**30, 1),
        "driver": driver_version() or known["driver"],
        **{name: known[name] for name in ("torch", "triton", "cuda")},
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": cores(),
        "seqnets": seqnets.__version__,
        "commit": commit(),
        "source": digest((ROOT / folder for folder in ("seqnets", "kernels", "benchmarks")), (".py", ".hpp")),
    }


def now() -> dict[str, Any]:
    return {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "clocks": clocks()}
