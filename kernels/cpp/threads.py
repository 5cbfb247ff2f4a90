"""The OpenMP runtime that torch has loaded. Kernels use its threads: another pool would fight with it for the same cores."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any

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


def _loaded() -> list[str]:
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:
        return []
    found = re.findall(r"\S*/lib(?:gomp|iomp5|omp)[^/\s]*\.so[.\d]*$", mapped, re.MULTILINE)
    return sorted(set(found), key=lambda path: "torch" not in path)
