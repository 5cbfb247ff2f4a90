"""Tells whether kernels can run here at all. Importing this module does not import Triton."""

from __future__ import annotations

import importlib.metadata
import os
import re
from functools import cache

from seqnets.compilation import constant

OLDEST = (3, 6)  # the oldest Triton version that was tested
WITH_ANY_NUMPY = (3, 7)  # older interpreters call int() on one-dimensional arrays, which NumPy 2.4 and newer refuse
CHECK = "SEQNETS_CHECK"  # environment variable


@cache
def triton_version() -> str | None:
    """Return the installed version of Triton, or None. Some builds of torch ship Triton under another package name."""
    return _version("triton", "pytorch-triton", "pytorch-triton-rocm", "triton-rocm")


@cache
def numpy_version() -> str | None:
    """Return the installed version of NumPy, or None, without importing NumPy."""
    return _version("numpy")


def _version(*names: str) -> str | None:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _release(version: str) -> tuple[int, ...]:
    """Return the major and minor version: (3, 7) for both 3.7.1 and 3.7rc1."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


@constant
def why_unavailable(device: str) -> str | None:
    """Return the reason, as a clause, why Triton kernels cannot run on this type of device, or None if they can."""
    version = triton_version()
    if version is None:
        return "Triton is not installed (pip install triton)"
    if _release(version) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        return f"Triton {version} is too old for its kernels, which need {wanted} (pip install -U triton)"
    if device == "cpu" and not interpreted():
        return (
            "its kernels run on GPUs; on the CPU they run in Triton's interpreter: "
            "set TRITON_INTERPRET=1 before Python starts"
        )
    if device == "cpu":
        return _why_not_interpreted(version, numpy_version())
    if device == "cuda" and interpreted():
        return "TRITON_INTERPRET=1 is set, which is for tensors on the CPU; unset it to run on the GPU"
    if device != "cuda":
        return f"its kernels run on CUDA and ROCm GPUs, and the input is on {device}"
    return None


def _why_not_interpreted(triton: str, numpy: str | None) -> str | None:
    if numpy is None:
        return "Triton's interpreter needs NumPy, which is not installed (pip install numpy)"
    if _release(triton) < WITH_ANY_NUMPY and _release(numpy) >= (2, 4):
        return (
            f'the interpreter of Triton {triton} fails with NumPy {numpy}: downgrade to 2.3 (pip install "numpy<2.4")'
        )
    return None


@constant
def interpreted() -> bool:
    """Return True if Triton runs as an interpreter on the CPU.

    Triton itself decides this when it is imported, by ``TRITON_INTERPRET``.
    """
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def is_checked() -> bool:
    """Return True if kernels are checked on first use, which ``SEQNETS_CHECK=0`` disables."""
    return os.environ.get(CHECK, "").lower() not in ("0", "false", "off", "no")
