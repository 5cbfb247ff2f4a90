"""How far kernels are from the cell's step in float64, and how far they may be.

They are judged step by step, from what they kept themselves (teacher forcing): their recurrent projections must be those of
the states that they kept, and these must be what the step makes of the ones before. A step may have kinks and jumps: judged
by the end of a sequence, a right kernel would be off as soon as rounding takes it to the other side of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch

from seqnets.cells import Cell
from seqnets.errors import BackendError
from seqnets.kernels.generation.module import generate
from seqnets.kernels.planning.select import precision_of
from seqnets.kernels.trial import Variant, follow, gradients, outputs, place, random_problem, recompute, run_kernels
from seqnets.tolerance import verdict

# Time steps and batch: on a GPU, rows enough for two tiles, the second not full; the interpreter is slow
SIZES = {"cuda": (5, 33), "cpu": (3, 5)}
DRAWS = 3


class Error(NamedTuple):
    what: str  # the output or gradient
    error: float  # its largest, against float64
    allowed: float  # by the tolerance policy

    @property
    def ratio(self) -> float:
        """Of the error to what is allowed: at most 1 where kernels agree."""
        if self.error == 0:
            return 0.0
        ratio = self.error / self.allowed if self.allowed else math.inf
        return math.inf if math.isnan(ratio) else ratio


def variants(cell: Cell, N: int, U: int, dtype: torch.dtype, differentiated: bool) -> list[Variant]:
    """Two that have as little in common as they can, to stand for all."""
    M, both = len(cell.masks), differentiated
    return [
        Variant(cell.key, N, U, 1, False, (False,) * M, dtype, True, both, False, False),
        Variant(cell.key, N, U, 2, True, (True,) * M, dtype, False, both, both, len(cell.states) > 1),
    ]


def worst_error(
    cell: Cell, variants: Iterable[Variant], device: torch.device, sizes: tuple[int, int] | None = None
) -> Error:
    """The worst of the errors of their kernels, on random problems, relative to what is allowed.

    A carried state is kept rounded. Where a step jumps, a state that close to the threshold puts a right kernel on the other
    side by chance: such a step disagrees only if it does so on every one of several draws, as a wrong kernel does.

    Args:
        sizes: time steps and batch.

    Raises:
        BackendError: the step has no finite values on random numbers, so there is nothing to compare.
    """
    draws = range(DRAWS if generate(cell).jumps else 1)
    return max((_best(cell, variant, device, sizes, draws) for variant in variants), key=_ratio)


def _best(
    cell: Cell, variant: Variant, device: torch.device, sizes: tuple[int, int] | None, seeds: Iterable[int]
) -> Error:
    """The worst error of the draw that went best, of all draws up to the first that agrees."""
    found: list[Error] = []
    for seed in seeds:
        found.append(max(_errors(cell, variant, device, sizes, seed), key=_ratio))
        if found[-1].ratio <= 1:
            break
    return min(found, key=_ratio)


def _ratio(error: Error) -> float:
    return error.ratio


def _errors(
    cell: Cell, variant: Variant, device: torch.device, sizes: tuple[int, int] | None, seed: int
) -> list[Error]:
    for positive in (False, True):  # a step that takes logarithms, say, has values for positive numbers only
        found = errors(cell, variant, device, sizes or SIZES[device.type], seed, positive)
        if found:
            return found
    raise BackendError("its step has no finite values on random numbers, so its kernels cannot be checked")


def errors(
    cell: Cell, variant: Variant, device: torch.device, sizes: tuple[int, int], seed: int = 0, positive: bool = False
) -> list[Error]:
    """Of each output and gradient on one random problem, as far as PyTorch's own values are finite; none if no output is."""
    problem = random_problem(cell, variant, *sizes, seed, positive)
    tf32 = device.type == "cuda" and precision_of(variant.dtype) == "tf32"
    with torch.inference_mode(False), torch.set_grad_enabled(variant.differentiated):
        given = place(problem, variant, device, variant.dtype)
        kept = actual = run_kernels(cell, given, keep_states=True, keep_r=True)
        if not variant.keep_r:  # they keep less, and are other kernels
            actual = run_kernels(cell, given, variant.differentiated or variant.all_states, keep_r=False)
        runs = [outputs(cell, variant, given, actual)]
        if variant.differentiated:
            runs[0] |= gradients(variant, given, actual)
            before = kept if variant.keep_r else kept._replace(r=recompute(given, kept))  # from which backward starts
        for dtype in (variant.dtype, torch.float64):
            given, truncated = place(problem, variant, device, dtype), tf32 and dtype is torch.float32
            runs.append(outputs(cell, variant, given, follow(cell, given, kept, truncated)))
            if variant.differentiated:
                runs[-1] |= gradients(variant, given, follow(cell, given, before, truncated))
    found = []
    for what, value in runs[0].items():
        baseline, oracle = runs[1][what], runs[2][what]
        known = baseline.isfinite() & oracle.isfinite()
        if what == "y" and known.numel() and not known.any():
            return []
        found.append(Error(what, *verdict(value[known], baseline[known], oracle[known], tf32)))
    return found
