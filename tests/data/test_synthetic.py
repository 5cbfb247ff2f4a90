"""Problems that are made: what they ask, and what guessing is worth."""

import math

import pytest
import torch
from torch.nn import functional as F

from seqnets.data import AddingProblem, CopyMemory
from seqnets.errors import ConfigError


def drawn(problem, **options):
    data = problem(train_size=4000, validation_size=5, test_size=6, **options)
    data.setup()
    return data, data._splits["train"].__getitems__(list(range(4000)))


def test_two_marked_numbers_are_to_be_added():
    data, batch = drawn(AddingProblem, length=31)
    assert batch.inputs.shape == (4000, 31, 2)
    numbers, marks = batch.inputs.unbind(-1)
    assert torch.equal(marks.sum(1), torch.full((4000,), 2.0))
    assert torch.equal(marks[:, :15].sum(1), torch.ones(4000))  # one in each half
    torch.testing.assert_close((numbers * marks).sum(1, keepdim=True), batch.targets)
    guessed = F.mse_loss(torch.ones_like(batch.targets), batch.targets)
    assert float(guessed) == pytest.approx(data.guess, rel=0.05)
    assert float(batch.targets.var()) == pytest.approx(data.guess, rel=0.05)  # no constant is a better answer


def test_ten_symbols_come_back_after_the_blanks():
    data, batch = drawn(CopyMemory, length=12)
    assert batch.inputs.shape == batch.targets.shape == (4000, 32)
    assert torch.equal(batch.inputs[:, :10], batch.targets[:, -10:])
    assert set(batch.inputs[:, :10].unique().tolist()) == set(range(1, 9))
    assert not batch.inputs[:, 10:21].any()
    assert (batch.inputs[:, 21] == 9).all()
    assert not batch.inputs[:, 22:].any() and not batch.targets[:, :22].any()
    # sure of the blanks, and each symbol as likely as the other
    logits = torch.full((32, 9), -1e9)
    logits[:22, 0] = 0
    logits[22:, 1:] = 0
    loss = F.cross_entropy(logits.expand(4000, -1, -1).flatten(0, 1), batch.targets.flatten())
    assert float(loss) == pytest.approx(data.guess, rel=1e-5)
    assert data.guess == pytest.approx(10 * math.log(8) / 32)


@pytest.mark.parametrize("problem", [AddingProblem, CopyMemory])
def test_splits_differ_from_each_other_and_not_from_run_to_run(problem):
    one, other = (problem(length=9, train_size=6, validation_size=6, test_size=6, seed=seed) for seed in (0, 1))
    for data in (one, other):
        data.setup()
    assert one.provenance() == other.provenance()
    inputs = [split.inputs for split in one._splits.values()]
    assert not torch.equal(inputs[0], inputs[1]) and not torch.equal(inputs[1], inputs[2])
    with pytest.raises(ConfigError, match="length is 0"):
        problem(length=0)
