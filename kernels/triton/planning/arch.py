"""Lists the GPU architectures that plans are made for. Importing it needs neither Triton nor a GPU."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import torch

KIB = 1024


class Arch(NamedTuple):
    """Holds the properties of a GPU that a plan depends on."""

    name: str
    backend: str  # of Triton: "cuda" or "hip"
    version: int | str  # in the form that Triton's targets use
    warp_size: int
    shared_limit: int  # bytes of shared memory that a block may have


ARCHS = {
    arch.name: arch
    for arch in (
        Arch("sm_80", "cuda", 80, 32, 163 * KIB),
        Arch("sm_86", "cuda", 86, 32, 99 * KIB),
        Arch("sm_89", "cuda", 89, 32, 99 * KIB),
        Arch("sm_90", "cuda", 90, 32, 227 * KIB),
        Arch("sm_100", "cuda", 100, 32, 227 * KIB),
        Arch("gfx942", "hip", "gfx942", 64, 64 * KIB),
    )
}


@cache
def arch_of(device: torch.device) -> Arch | str:
    """Return the architecture to plan for on a CUDA or ROCm device, or a clause that says why there is none.

    A GPU that is not listed in `ARCHS` is planned for as the nearest older one, within its own shared memory.
    """
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        name = properties.gcnArchName.partition(":")[0]
        if not re.fullmatch(r"gfx9[45]\w", name):
            return (
                f"of AMD's GPUs its kernels are for gfx942 and newer ones of that line, and {properties.name} is {name}"
            )
        arch = ARCHS["gfx942"]
    else:
        capability = 10 * properties.major + properties.minor
        older = [a for a in ARCHS.values() if isinstance(a.version, int) and a.version <= capability]
        if not older:
            return (
                "its kernels need compute capability 8.0, for products in bfloat16 and TF32, "
                f"and {properties.name} has {properties.major}.{properties.minor}"
            )
        arch = older[-1]
    return arch._replace(shared_limit=getattr(properties, "shared_memory_per_block_optin", arch.shared_limit))
