"""Defines the tolerance policy of all comparisons of kernels with PyTorch.

The error against float64 may be at most twice that of PyTorch in the same dtype, plus a floor. The floor allows for a
different order of summation where PyTorch's own error happens to be close to zero. It is relative to the largest entry
of the oracle. Products in TF32 get the floor of float16, which has a mantissa of the same size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


class Error(NamedTuple):
    what: str  # the output or gradient
    error: float  # the largest error against float64
    allowed: float  # the largest error that the tolerance policy allows

    @property
    def ratio(self) -> float:
        """Return the error divided by the allowed error: at most 1 if kernels agree, infinite if it is undefined."""
        if not math.isfinite(self.allowed):  # PyTorch's own result is not finite, so this one cannot be judged
            return math.inf
        if self.error == 0:
            return 0.0
        ratio = self.error / self.allowed if self.allowed else math.inf
        return math.inf if math.isnan(ratio) else ratio


def verdict(actual: Tensor, baseline: Tensor, oracle: Tensor, tf32: bool = False) -> tuple[float, float]:
    """Return the largest error of `actual`, and the largest error that the tolerance policy allows.

    Args:
        actual: the result to judge.
        baseline: PyTorch's result in the same dtype.
        oracle: the result in float64.
        tf32: whether products were computed in TF32.

    A NaN in `actual` counts as an infinite error.
    """
    floor = FLOOR[torch.float16 if tf32 else actual.dtype]
    if not oracle.numel():
        return 0.0, floor
    error = (actual.double() - oracle).abs().nan_to_num(nan=float("inf")).max().item()
    allowed = 2 * (baseline.double() - oracle).abs().max().item() + floor * oracle.abs().max().item()
    return error, allowed
