"""Measures how far kernels are from the cell's step in float64, and how far they may be.

Kernels are judged step by step, from what they kept themselves (teacher forcing): their recurrent projections must be
those of the states that they kept, and each of these states must be what the step computes from the state before. A
step may have kinks and jumps. Judged by the end of a sequence, a correct kernel would look wrong as soon as rounding
takes it to the other side of one.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.errors import BackendError
from seqnets.kernels.triton.module import generate
from seqnets.kernels.triton.planning.select import precision_of
from seqnets.kernels.triton.trial import (
    Problem,
    Values,
    Variant,
    follow,
    gradients,
    outputs,
    place,
    projections,
    random_problem,
    recompute,
    run_kernels,
)
from seqnets.tolerance import FLOOR, Error, verdict

# Time steps and batch. On a GPU the rows take several tiles of 16, the last of them not full; the interpreter is slow
SIZES = {"cuda": (5, 33), "cpu": (3, 5)}
FEW = 0.05  # the part of the entries that may be left out as undecided


def variants(cell: Cell, N: int, U: int, dtype: torch.dtype, differentiated: bool) -> list[Variant]:
    """Return two variants that have as little in common as possible, to stand for all."""
    M, both = len(cell.masks), differentiated
    return [
        Variant(cell.key, N, U, 1, False, (False,) * M, dtype, True, both, False, False),
        Variant(cell.key, N, U, 2, True, (True,) * M, dtype, False, both, both, len(cell.states) > 1),
    ]


def worst_error(
    cell: Cell, variants: Iterable[Variant], device: torch.device, sizes: tuple[int, int] | None = None
) -> Error:
    """Return the error of the variants' kernels, on random problems, that is largest relative to what is allowed.

    Args:
        cell: the cell whose kernels are checked.
        variants: at least one.
        device: where the kernels run.
        sizes: time steps and batch; by default `SIZES`.

    Raises:
        BackendError: the step has no finite values on random numbers, so there is nothing to compare.
    """
    found = [error for variant in variants for error in _errors(cell, variant, device, sizes or SIZES[device.type])]
    return max(found, key=lambda error: error.ratio)


def _errors(cell: Cell, variant: Variant, device: torch.device, sizes: tuple[int, int]) -> list[Error]:
    for positive in (False, True):  # a step that takes logarithms, for example, has values for positive numbers only
        found = errors(cell, variant, device, sizes, positive)
        if found:
            return found
    raise BackendError("its step has no finite values on random numbers, so its kernels cannot be checked")


def errors(
    cell: Cell, variant: Variant, device: torch.device, sizes: tuple[int, int], positive: bool = False
) -> list[Error]:
    """Return the errors of all outputs, recurrent projections and gradients on one random problem.

    Only entries count where PyTorch's own values are finite. If no entry of the output y is, the list is empty.
    """
    problem = random_problem(cell, variant, *sizes, positive)
    tf32 = device.type == "cuda" and precision_of(variant.dtype) == "tf32"
    with torch.inference_mode(False), torch.set_grad_enabled(variant.differentiated):
        given = place(problem, variant, device, variant.dtype)
        kept = actual = before = run_kernels(cell, given, keep_states=True, keep_r=True)
        if not variant.keep_r:  # other kernels, which keep less
            actual = run_kernels(cell, given, variant.differentiated or variant.all_states, keep_r=False)
            before = kept._replace(r=recompute(given, kept))  # what backward starts from
        runs = [outputs(cell, variant, given, actual) | projections(given, kept, before)]
        if variant.differentiated:
            runs[0] |= gradients(variant, given, actual)
        for dtype in (variant.dtype, torch.float64):
            given, truncated = place(problem, variant, device, dtype), tf32 and dtype is torch.float32
            followed = follow(cell, given, kept, truncated)
            runs.append(outputs(cell, variant, given, followed) | projections(given, followed, followed))
            if variant.differentiated:
                runs[-1] |= gradients(variant, given, follow(cell, given, before, truncated))
        undecided = _undecided(cell, variant, given, kept, runs[2])
    found = []
    for what, value in runs[0].items():
        baseline, oracle = runs[1][what], runs[2][what]
        known = baseline.isfinite() & oracle.isfinite()
        if what == "y" and known.numel() and not known.any():
            return []
        if what in undecided:
            known &= ~undecided[what]
        found.append(Error(what, *verdict(value[known], baseline[known], oracle[known], tf32)))
    return found


@torch.no_grad()
def _undecided(
    cell: Cell, variant: Variant, given: Problem, kept: Values, oracle: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return masks, by name, of the entries where a step may or may not jump: those that are undecided.

    Kernels carry states unrounded, but what they kept is rounded. Only a few entries can be that close to a threshold:
    an output where more seem to be has no mask, and all its entries are judged.
    """
    if not generate(cell).jumps or variant.dtype.itemsize > 2:
        return {}
    # rounding moves a state by up to eps / 2; Triton's interpreter truncates, and moves it by up to eps
    eps = torch.finfo(variant.dtype).eps
    found = {what: torch.zeros_like(value, dtype=torch.bool) for what, value in oracle.items()}
    for part in (-1, -0.5, -0.1, 0.1, 0.5, 1):  # parts of eps: a step may jump there and back
        nudge = part * eps
        nudged = outputs(cell, variant, given, follow(cell, given, kept, tf32=False, nudge=nudge))
        for what, value in nudged.items():
            largest = oracle[what].abs().nan_to_num(posinf=0.0).max() if oracle[what].numel() else 0.0
            found[what] |= (value - oracle[what]).abs() > FLOOR[variant.dtype] * largest
    return {what: where for what, where in found.items() if where.double().mean() < FEW}
