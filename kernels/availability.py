"""Whether kernels can run here at all. Importing this imports no Triton."""

from __future__ import annotations

import importlib.metadata
import os
import re
from functools import cache

from seqnets.compilation import constant

OLDEST = (3, 6)  # of the Triton versions that were tried
WITH_ANY_NUMPY = (3, 7)  # older interpreters call int() on one-dimensional arrays, which NumPy 2.4 and newer refuse
CHECK = "SEQNETS_CHECK"  # in the environment


@cache
def triton_version() -> str | None:
    """The installed version, or None. A build of torch may bring Triton under a name of its own."""
    return _version("triton", "pytorch-triton", "pytorch-triton-rocm", "triton-rocm")


@cache
def numpy_version() -> str | None:
    """The installed version, or None. Nothing is imported to find it."""
    return _version("numpy")


def _version(*names: str) -> str | None:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _release(version: str) -> tuple[int, ...]:
    """Major and minor: (3, 7) of 3.7.1 and of 3.7rc1."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


@constant
def why_unavailable(device: str) -> str | None:
    """Why kernels cannot run on that type of device, as a clause, or None."""
    version = triton_version()
    if version is None:
        return "Triton is not installed (pip install triton)"
    if _release(version) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        return f"Triton {version} is too old for its kernels, which need {wanted} (pip install -U triton)"
    if device == "cpu" and not interpreted():
        return "its kernels run on GPUs; on the CPU they run in Triton's interpreter: set TRITON_INTERPRET=1 before Python starts"
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
    """Whether Triton runs as an interpreter, on the CPU. It decides when it is imported."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def is_checked() -> bool:
    """Whether the first uses of kernels are checked: not with ``SEQNETS_CHECK=0``."""
    return os.environ.get(CHECK, "").lower() not in ("0", "false", "off", "no")
