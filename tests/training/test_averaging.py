"""SGD that averages once validation stops improving."""

import pytest
import torch
from torch import nn

from seqnets.training.averaging import NTASGD


def step(optimizer, parameter, gradient):
    parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()


def test_it_is_sgd_until_a_loss_is_above_all_but_the_last_ones():
    parameter = nn.Parameter(torch.tensor([1.0]))
    optimizer = NTASGD([parameter], lr=0.1, weight_decay=0.5, patience=2)
    step(optimizer, parameter, 2.0)
    torch.testing.assert_close(parameter.data, torch.tensor([1 - 0.1 * (2 + 0.5)]))
    for loss in (5.0, 4.0, 6.0, 5.5):  # 6 is above 5, but the last two before it do not count
        assert not optimizer.averaging
        optimizer.observe(loss)
    assert optimizer.averaging


def test_losses_that_fall_never_trigger():
    optimizer = NTASGD([nn.Parameter(torch.zeros(1))], lr=0.1, patience=1)
    for loss in (5.0, 4.0, 3.0, 2.0):
        optimizer.observe(loss)
    assert not optimizer.averaging


def test_the_average_is_of_all_iterates_since_and_survives_a_checkpoint():
    parameter = nn.Parameter(torch.tensor([0.0]))
    optimizer = NTASGD([parameter], lr=1.0, patience=1)
    for loss in (1.0, 2.0, 3.0):
        optimizer.observe(loss)
    for gradient in (-1.0, -2.0):  # iterates 1, 3
        step(optimizer, parameter, gradient)
    again = nn.Parameter(parameter.detach().clone())
    resumed = NTASGD([again], lr=1.0, patience=1)
    resumed.load_state_dict(optimizer.state_dict())
    step(resumed, again, -4.0)  # 7
    resumed.swap()
    torch.testing.assert_close(again.data, torch.tensor([(1 + 3 + 7) / 3]))
    resumed.swap()
    torch.testing.assert_close(again.data, torch.tensor([7.0]))


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"lr": 1.0, "weight_decay": -1.0}, {"lr": 1.0, "patience": 0}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        NTASGD([nn.Parameter(torch.zeros(1))], **wrong)
