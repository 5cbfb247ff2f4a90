"""An output for every step, the same at once as step by step; and numbers for a whole sequence."""

import pytest
import torch
from torch import nn

import seqnets
from seqnets.models import SequenceRegressor, StepPredictor


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
@pytest.mark.parametrize("embedding", [None, nn.Embedding(9, 4)])
def test_step_by_step_is_as_at_once(cell, embedding):
    model = StepPredictor(seqnets.Recurrent(cell, 4, 5, num_layers=2), 3, embedding, dropout=0.5, input_dropout=0.5)
    model.eval()
    inputs = torch.randn(2, 6, 4) if embedding is None else torch.randint(9, (2, 6))
    whole = model(inputs)
    assert whole.shape == (2, 6, 3)
    state, steps = None, []
    for t in range(6):
        output, state = model.step(inputs[:, t], state)
        steps.append(output)
    torch.testing.assert_close(torch.stack(steps, 1), whole)
    first, state = model.run(inputs[:, :2])
    torch.testing.assert_close(torch.cat([first, model(inputs[:, 2:], state=state)], 1), whole)


@pytest.mark.parametrize("kind", [StepPredictor, SequenceRegressor])
def test_what_lies_beyond_a_sequences_end_does_not_matter(kind):
    model = kind(seqnets.GRU(4, 5, bidirectional=True), 3)
    inputs, lengths = torch.randn(2, 6, 4), torch.tensor([6, 2])
    poisoned = inputs.clone()
    poisoned[1, 2:] = torch.nan
    outputs = model(poisoned, lengths)
    assert outputs.isfinite().all()
    alone = model(inputs[1:, :2])
    torch.testing.assert_close(outputs[1, :2] if kind is StepPredictor else outputs[1], alone[0])


def test_dropout_is_before_and_after_the_recurrent_stack():
    recurrent = seqnets.GRU(4, 5)
    for dropped in ({"dropout": 1.0}, {"input_dropout": 1.0}):
        model = StepPredictor(recurrent, 3, **dropped)
        one, other = (model(torch.randn(2, 6, 4)) for _ in range(2))
        torch.testing.assert_close(one, other)  # of nothing that was read
        model.eval()
        assert not torch.allclose(model(torch.randn(2, 6, 4)), one)


def test_a_regressor_reads_the_final_state():
    recurrent = seqnets.LSTM(4, 5, num_layers=2)
    model = SequenceRegressor(recurrent, 3)
    x = torch.randn(2, 6, 4)
    torch.testing.assert_close(model(x), model.head(recurrent(x.transpose(0, 1))[0][-1]))


@pytest.mark.parametrize("kind", [StepPredictor, SequenceRegressor])
def test_what_cannot_be_is_refused(kind):
    with pytest.raises(ValueError, match="batch_first=False"):
        kind(seqnets.GRU(4, 5, batch_first=True), 3)
    with pytest.raises(ValueError, match="out_features=0"):
        kind(seqnets.GRU(4, 5), 0)
    with pytest.raises(RuntimeError, match="bidirectional"):
        StepPredictor(seqnets.GRU(4, 5, bidirectional=True), 3).step(torch.randn(2, 4))
