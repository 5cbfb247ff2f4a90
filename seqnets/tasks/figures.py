"""Means over an epoch, for all tasks."""

from __future__ import annotations

import math

from torch import Tensor
from torchmetrics import MeanMetric


class Mean(MeanMetric):
    """A mean by weight. No number where one of its values is none: a run that diverged shows it."""

    def __init__(self) -> None:
        super().__init__(nan_strategy=math.nan)


class Perplexity(Mean):
    """exp of the mean loss in nats."""

    def compute(self) -> Tensor:
        return super().compute().exp()


class Bits(Mean):
    """The mean loss in bits."""

    def compute(self) -> Tensor:
        return super().compute() / math.log(2)
