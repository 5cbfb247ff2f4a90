"""Means over an epoch."""

import math

import pytest
import torch

from seqnets.tasks.metrics import Bits, Mean, Perplexity


def over(metric, *values):
    for value, weight in values:
        metric.update(torch.tensor(value), weight=weight)
    return float(metric.compute())


def test_means_are_by_weight():
    assert over(Mean(), (1.0, 3), (5.0, 1)) == pytest.approx(2.0)
    assert over(Perplexity(), (1.0, 3), (5.0, 1)) == pytest.approx(math.exp(2.0))
    assert over(Bits(), (1.0, 3), (5.0, 1)) == pytest.approx(2.0 / math.log(2))


@pytest.mark.parametrize("metric", [Mean, Perplexity, Bits])
def test_what_is_no_number_is_not_left_out(metric):
    assert math.isnan(over(metric(), (1.0, 3), (math.nan, 2), (5.0, 1)))
