"""Finds the OpenMP runtime that torch has loaded.

Kernels use its threads, because a second pool of threads would compete with it for the same cores.
"""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch

from seqnets import forking

HARD = 2  # omp_pause_hard
SYMBOLS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")


@cache
def runtime() -> tuple[Any, ...] | None:
    """Return the functions `SYMBOLS` of the loaded runtime, or None if none is found.

    They belong to GNU's binary interface, which the runtimes of LLVM and Intel have too.
    """
    for path in _loaded():
        try:
            library = ctypes.CDLL(path)
            return tuple(getattr(library, name) for name in SYMBOLS)
        except (OSError, AttributeError):
            continue
    return None


def count_threads() -> int:
    """Return the number of threads that kernels use: as many as torch's operations, but one in a forked child.

    In a forked child, OpenMP would wait forever for the threads of the parent, which did not survive the fork.
    """
    return 1 if forking.forked else torch.get_num_threads()


def release() -> None:
    """End the threads that the runtime keeps for the calling thread. It starts new ones when it needs them.

    Idle threads count too. If there are more threads than cores, for example because another thread keeps some of its
    own, the runtime stops waiting by spinning. Work that synchronizes often then becomes several times slower.
    """
    for path in _loaded():
        try:
            ctypes.CDLL(path).omp_pause_resource_all(HARD)
        except (OSError, AttributeError):  # the runtime is older than OpenMP 5
            continue


def _loaded() -> list[str]:
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:
        return []
    found = re.findall(r"\S*/lib(?:gomp|iomp5|omp)[^/\s]*\.so[.\d]*$", mapped, re.MULTILINE)
    return sorted(set(found), key=lambda path: "torch" not in path)
