"""The GPU that is here: whether anything can be proven on it, and what a reader of the results has to know of it."""

from __future__ import annotations

import platform
import time
from typing import Any

import torch

import seqnets
from benchmarks.cuda import clocks
from seqnets.cores import cores
from seqnets.errors import BackendError
from seqnets.kernels import store
from seqnets.kernels.availability import why_unavailable
from seqnets.kernels.planning.arch import arch_of
from seqnets.source import commit

LEAST_MEMORY = 2 << 30  # bytes: contexts of the processes that check side by side


def refuse() -> None:
    """Nothing, where a proof can run.

    Raises:
        BackendError: it cannot; the message says why, and the way out.
    """
    if not torch.cuda.is_available():
        raise BackendError(
            "there is no GPU here (torch.cuda.is_available() is false), so nothing can be proven; --dry rehearses all but the GPU"
        )
    unavailable = why_unavailable("cuda")
    if unavailable is not None:
        raise BackendError(f"the kernels cannot run here: {unavailable}")
    arch = arch_of(torch.device("cuda"))
    if isinstance(arch, str):
        raise BackendError(f"the kernels cannot run here: {arch}")
    free, total = torch.cuda.mem_get_info()
    if free < LEAST_MEMORY:
        raise BackendError(
            f"{free / 2**30:.1f} of {total / 2**30:.0f} GiB of the GPU's memory are free, and a proof takes {LEAST_MEMORY >> 30}: "
            "another process holds it (nvidia-smi shows which)"
        )


def surroundings() -> dict[str, Any]:
    """In JSON types. With the stub installed, of the stub."""
    properties = torch.cuda.get_device_properties(0)
    known = store.surroundings(torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))
    free, total = torch.cuda.mem_get_info()
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(total / 2**30, 1),
        "free_gib": round(free / 2**30, 1),
        **{name: known[name] for name in ("driver", "torch", "triton", "cuda")},
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": cores(),
        "seqnets": seqnets.__version__,
        "commit": commit(),
        "source": known["kernels"],
    }


def now() -> dict[str, Any]:
    return {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "clocks": clocks()}
