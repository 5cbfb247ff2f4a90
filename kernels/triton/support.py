"""Decides whether kernels serve a call, by the cell, the plan and the check of their first use."""

from __future__ import annotations

import torch

from seqnets.cells.registry import find_cell
from seqnets.errors import CellError
from seqnets.kernels.availability import constant


@constant
def why_refused(
    cell: str, N: int, U: int, D: int, ragged: bool, per_step: tuple[bool, ...], dtype: torch.dtype, bias: bool,
    differentiated: bool, keep_r: bool, all_states: bool, device: str,
) -> str | None:  # fmt: skip
    """Return a clause that says why kernels do not serve a call, or None if they do.

    Arguments and result are plain values, because torch.compile calls this while it traces and keeps the result.
    """
    from seqnets.kernels.availability import is_checked
    from seqnets.kernels.triton.first_use import why_disagrees
    from seqnets.kernels.triton.module import generate
    from seqnets.kernels.triton.planning.select import find_plan
    from seqnets.kernels.triton.trial import Variant

    try:
        outdated = find_cell(cell).why_outdated(generate(find_cell(cell)).numbers)
    except CellError as error:
        return str(error)
    if outdated is not None:
        return outdated
    place = torch.device(device)
    plans = []
    for backward in (False, True) if differentiated else (False,):
        plan = find_plan(find_cell(cell), U, N, dtype, place, backward)
        if isinstance(plan, str):
            return f"for gradients, {plan} (under torch.no_grad() they would serve)" if backward else plan
        plans.append(plan)
    if not is_checked():
        return None
    variant = Variant(cell, N, U, D, ragged, per_step, dtype, bias, differentiated, keep_r, all_states)
    return why_disagrees(variant, place, tuple(plans))
