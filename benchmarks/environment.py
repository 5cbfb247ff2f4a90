"""Describes what a run ran on."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from benchmarks.contenders import Settings
from benchmarks.cuda import clocks
from seqnets.kernels.cpp.build import compiler_version
from seqnets.training.environment import environment as environment_of_training


def environment(settings: Settings, seed: int) -> dict[str, Any]:
    """Return what a run with these settings runs on, in JSON types."""
    found = environment_of_training(torch.device(settings.device), seed)
    return found | {
        "command": [
            "python",
            "-m",
            "benchmarks",
            *(p for p in found["command"][1:] if not p.startswith("hydra.run.dir=")),
        ],
        "threads": settings.threads,
        "device": found["device"].replace(f"{found['threads']} threads", f"{settings.threads} threads"),
        "precision": settings.precision,
        "compiler": compiler_version(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "clocks": clocks(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
