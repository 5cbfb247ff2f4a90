"""The OpenMP runtime that torch has loaded. Kernels use its threads: another pool would fight with it for the same cores."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch

from seqnets.forking import is_forked

HARD = 2  # omp_pause_hard
SYMBOLS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")


@cache
def runtime() -> tuple[Any, ...] | None:
    """Its functions `SYMBOLS`, of GNU's binary interface, which LLVM's and Intel's have too; None where none is found."""
    for path in _loaded():
        try:
            library = ctypes.CDLL(path)
            return tuple(getattr(library, name) for name in SYMBOLS)
        except (OSError, AttributeError):
            continue
    return None


def count_threads() -> int:
    """Return how many threads the kernels use: as many as torch's operations, but one in a forked child.

    There OpenMP would wait forever for the threads of the parent, which did not survive the fork.
    """
    return 1 if is_forked() else torch.get_num_threads()


def release() -> None:
    """End the threads that the runtime keeps for the calling thread, until it needs some again.

    Kept ones count: where there are more than cores, as when another thread has some too, the runtime no longer waits by spinning,
    and whatever meets often becomes several times as slow.
    """
    for path in _loaded():
        try:
            ctypes.CDLL(path).omp_pause_resource_all(HARD)
        except (OSError, AttributeError):  # before OpenMP 5
            continue


def _loaded() -> list[str]:
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:
        return []
    found = re.findall(r"\S*/lib(?:gomp|iomp5|omp)[^/\s]*\.so[.\d]*$", mapped, re.MULTILINE)
    return sorted(set(found), key=lambda path: "torch" not in path)
