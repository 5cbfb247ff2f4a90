"""Why compiled kernels do not serve a call, all considered."""

from __future__ import annotations

import torch

from seqnets.cells.cell import find_cell
from seqnets.kernels.availability import constant


@constant
def why_refused(cell: str, dtype: torch.dtype) -> str | None:
    """A clause, or None where they serve. Plain values in and out: torch.compile asks while it traces, and keeps the answer."""
    from seqnets.kernels.availability import is_checked
    from seqnets.kernels.cpp.first_use import why_disagrees
    from seqnets.kernels.cpp.library import library

    found = library(find_cell(cell), dtype)
    if isinstance(found, str):
        return found
    return why_disagrees(find_cell(cell), dtype) if is_checked() else None
