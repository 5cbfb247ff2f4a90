"""Schedules of the learning rate, against their formulas."""

import pytest
import torch
from torch import nn

from seqnets.training.schedules import InverseTime


def test_inverse_time_is_keras_decay_of_old():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = InverseTime(optimizer, decay=0.1)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5 / (1 + 0.1 * step) for step in range(5)])
    with pytest.raises(ValueError, match="must not be negative"):
        InverseTime(optimizer, decay=-1.0)
