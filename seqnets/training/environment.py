"""Records the environment of a run: enough to repeat it, or to see why a repetition differs."""

import os
import platform
import sys
from pathlib import Path
from typing import Any

import lightning
import torch

import seqnets
from seqnets.source import commit


def environment(device: torch.device, seed: int) -> dict[str, Any]:
    """Return versions, hardware, threads, commit and command line, as a plain dict."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "seed": seed,
        "seqnets": seqnets.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device_name(device),
        "SEQNETS_BACKEND": os.environ.get("SEQNETS_BACKEND"),
    }


def device_name(device: torch.device) -> str:
    """Return the device and its hardware: ``"cpu (Intel(R) Xeon(R) …, 2 threads)"`` or ``"cuda:0 (NVIDIA H100 …)"``."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({_cpu()}, {torch.get_num_threads()} threads)"
    return str(device)


def _cpu() -> str:
    try:  # platform.processor() is empty or the bare architecture on Linux
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
