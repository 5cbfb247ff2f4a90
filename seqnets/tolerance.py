"""The one tolerance policy: an error against float64 of at most twice that of PyTorch in the same dtype, plus a floor.

The floor allows for another order of summation where PyTorch's own error happens to be next to nothing. It is relative to
the largest entry of the oracle. A product in TF32 has the mantissa of float16.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


class Error(NamedTuple):
    what: str  # the output or gradient
    error: float  # its largest, against float64
    allowed: float  # by the tolerance policy

    @property
    def ratio(self) -> float:
        """Of the error to what is allowed: at most 1 where kernels agree."""
        if not math.isfinite(self.allowed):  # PyTorch's own result is no number: nothing can be said of this one
            return math.inf
        if self.error == 0:
            return 0.0
        ratio = self.error / self.allowed if self.allowed else math.inf
        return math.inf if math.isnan(ratio) else ratio


def verdict(actual: Tensor, baseline: Tensor, oracle: Tensor, tf32: bool = False) -> tuple[float, float]:
    """The error of `actual` against `oracle` (float64), and what `baseline` (PyTorch, same dtype) allows; nan is infinite."""
    floor = FLOOR[torch.float16 if tf32 else actual.dtype]
    if not oracle.numel():
        return 0.0, floor
    error = (actual.double() - oracle).abs().nan_to_num(nan=float("inf")).max().item()
    allowed = 2 * (baseline.double() - oracle).abs().max().item() + floor * oracle.abs().max().item()
    return error, allowed
