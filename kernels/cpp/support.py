"""Decides whether compiled kernels can serve a call, and gives the reason if not."""

from __future__ import annotations

import torch

from seqnets.cells.registry import find_cell
from seqnets.kernels.availability import constant


@constant
def why_refused(cell: str, dtype: torch.dtype) -> str | None:
    """Return the reason, as a clause, why compiled kernels cannot serve the cell, or None if they can.

    Arguments and result are plain values, because torch.compile calls this while it traces and keeps the result.
    """
    from seqnets.kernels.availability import is_checked
    from seqnets.kernels.cpp.first_use import why_disagrees
    from seqnets.kernels.cpp.library import library

    found = library(find_cell(cell), dtype)
    if isinstance(found, str):
        return found
    return why_disagrees(find_cell(cell), dtype) if is_checked() else None
