"""Provides metrics that are means over an epoch, for all tasks."""

from __future__ import annotations

import math

from torch import Tensor
from torchmetrics import MeanMetric


class Mean(MeanMetric):
    """Computes a weighted mean, which is NaN if one of its values is, so that a diverged run shows it."""

    def __init__(self) -> None:
        super().__init__(nan_strategy=math.nan)


class Perplexity(Mean):
    """Computes the perplexity, exp of the mean loss in nats."""

    def compute(self) -> Tensor:
        return super().compute().exp()


class Bits(Mean):
    """Computes the mean loss in bits, from losses in nats."""

    def compute(self) -> Tensor:
        return super().compute() / math.log(2)
