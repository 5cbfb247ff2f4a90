"""How far kernels are from the cell's step in float64, and how far they may be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from seqnets.cells import Cell
from seqnets.kernels.first_use import Variant, compare
from seqnets.kernels.planning.select import precision_of
from seqnets.tolerance import verdict


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


SIZES = {"cuda": (32, 17), "cpu": (3, 5)}  # time steps and batch; the interpreter is slow


def variants(cell: Cell, N: int, U: int, dtype: torch.dtype, differentiated: bool) -> list[Variant]:
    """Two that have as little in common as they can, to stand for all."""
    return [
        Variant(cell.key, N, U, 1, False, (False,) * len(cell.masks), dtype, True, differentiated, differentiated),
        Variant(cell.key, N, U, 2, True, (True,) * len(cell.masks), dtype, False, differentiated, False),
    ]


def worst_error(cell: Cell, variants: Iterable[Variant], device: torch.device) -> Error:
    """The worst of the errors of their kernels, on random problems, relative to what is allowed."""
    return max((error for v in variants for error in _errors(cell, v, device)), key=lambda error: error.ratio)


def _errors(cell: Cell, variant: Variant, device: torch.device) -> Iterator[Error]:
    tf32 = device.type == "cuda" and precision_of(variant.dtype) == "tf32"
    for what, actual, baseline, oracle in compare(cell, variant, device, *SIZES[device.type]):
        yield Error(what, *verdict(actual, baseline, oracle, tf32))
