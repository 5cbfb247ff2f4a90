"""Describes the environment in which the kernels run: versions, GPU, environment variables and caches."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

import seqnets
from seqnets.folders import cache_directory
from seqnets.kernels import store
from seqnets.kernels.availability import interpreted, why_unavailable
from seqnets.kernels.cpp.build import compiler_version, cpu_name
from seqnets.kernels.triton.planning.select import arch_here, precision_of


def environment(device: torch.device) -> dict[str, Any]:
    """Return a description of the environment in JSON types; a value is None where it does not apply."""
    gpu, usable = device.type == "cuda", why_unavailable(device.type) is None
    known = store.environment(device)
    arch = arch_here(device) if usable else None
    return {
        "seqnets": seqnets.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: known[name] for name in ("torch", "triton", "cuda", "driver")},
        "cudnn": torch.backends.cudnn.version() if gpu else None,
        "gpu": known["gpu"] if gpu else None,
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))) if gpu else None,
        "planned_for": arch if isinstance(arch, str | None) else arch.name,
        "interpreter": interpreted(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "compiler": compiler_version(),
        "float32_products": precision_of(torch.float32) if gpu else "ieee",  # the precision of the interpreter
        "cache": str(cache_directory()),
        "triton_cache": _triton_cache() if usable else None,
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(("SEQNETS_", "TRITON_"))},
    }


def where_it_ran(device: torch.device) -> str:
    """Return a sentence that says where the kernels ran, and why not on a GPU if they did not."""
    unavailable = why_unavailable(device.type)
    if unavailable is not None:
        return f"Triton's kernels did not run: {unavailable}. Those in C++ are for the CPU."
    if device.type == "cuda":
        return f"Triton's kernels ran on {torch.cuda.get_device_name(device)}; those in C++ are for the CPU."
    why = "TRITON_INTERPRET=1 is set" if torch.cuda.is_available() else "PyTorch finds none here"
    return (
        f"Nothing ran on a GPU, because {why}: Triton's kernels ran in its interpreter, on the CPU; "
        "those in C++ are for the CPU."
    )


def _triton_cache() -> str:
    import triton

    return triton.knobs.cache.dir
