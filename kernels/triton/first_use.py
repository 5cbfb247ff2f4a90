"""Checks the first use of generated kernels on a device: a small random problem, compared with the cell's own step.

Kernels may meet a GPU, a driver or a Triton version that nobody has tried. Kernels that disagree are refused.
"""

from __future__ import annotations

import logging

import torch

from seqnets.cells import Cell
from seqnets.cells.registry import find_cell
from seqnets.errors import BackendError
from seqnets.kernels import store
from seqnets.kernels.availability import CHECK
from seqnets.kernels.isolation import isolated
from seqnets.kernels.triton.agreement import worst_error
from seqnets.kernels.triton.module import generate
from seqnets.kernels.triton.planning.plan import Plan
from seqnets.kernels.triton.trial import Variant
from seqnets.once import once

log = logging.getLogger(__name__)


class _OutOfMemory(Exception):
    """Raised when the check ran out of GPU memory, so that it is not known whether the kernels are right."""


def why_disagrees(variant: Variant, device: torch.device, plans: tuple[Plan, ...]) -> str | None:
    """Return a clause that says what is wrong with the variant's kernels on the device, by those plans, or None.

    The verdict is kept for the process, and on disk for the GPU, the versions and the source that it is about. Kernels
    that failed to run have no verdict on disk: the next process tries them again.
    """
    known = (variant, device, plans) in find_verdict.known
    if not known and device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return (
            "the check of its kernels' first use cannot run while a CUDA graph is captured: run the layer once before"
        )
    try:
        return find_verdict(variant, device, plans)
    except _OutOfMemory:  # which may pass, so it is not kept as a verdict
        return "the GPU has no memory left for the check of its kernels' first use"


@once
def find_verdict(variant: Variant, device: torch.device, plans: tuple[Plan, ...]) -> str | None:
    """Return what `why_disagrees` returns, or raise `_OutOfMemory` if the check could not be done."""
    return isolated(_find_verdict, variant, device, plans)


def _find_verdict(variant: Variant, device: torch.device, plans: tuple[Plan, ...]) -> str | None:
    cell = find_cell(variant.cell)
    key = {
        **store.environment(device),
        **variant._asdict(),
        "dtype": str(variant.dtype),
        "plans": [plan._asdict() for plan in plans],
        "cell": generate(cell).digest,
    }
    known = store.read("check", key, store.verdict)
    if known is None:
        try:
            known = {"why": _judge(cell, variant, device)}
        except Exception as error:
            # An error, for example of the compiler or driver, is logged in full and is a reason for another backend.
            # The error of a launch that runs out of memory has no class of its own.
            if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
                raise _OutOfMemory from error
            log.warning("The kernels of %r failed on their first use.", cell.name, exc_info=True)
            reason = str(error).partition("\n")[0]
            return f"on first use its kernels failed ({type(error).__name__}: {reason}); the log has the traceback"
        store.write("check", key, known)
    return known["why"]


def _judge(cell: Cell, variant: Variant, device: torch.device) -> str | None:
    off = f"({CHECK}=0 switches this check off"
    try:
        worst = worst_error(cell, [variant], device)
    except BackendError as error:
        return f"{error} {off})"
    if worst.ratio <= 1:
        return None
    return (
        f"on first use its kernels disagreed with the cell's step: {worst.what} is off by {worst.error:.2g} where "
        f"{worst.allowed:.2g} is allowed {off}; python -m seqnets.doctor says more)"
    )
