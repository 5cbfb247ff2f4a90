"""The language model, and the dropouts of AWD-LSTM."""

import pytest
import torch
from torch.nn import functional as F

import seqnets
from seqnets.models import LanguageModel
from seqnets.models.dropout import DropoutEmbedding, LockedDropout, drop_recurrent_weights

TOKENS = torch.randint(0, 11, (3, 9), generator=torch.Generator().manual_seed(0))


def test_awd_lstm_has_the_parameters_of_its_repository():
    with torch.device("meta"):
        model = LanguageModel("lstm", 10_000, 400, 1150, num_layers=3, tied=True, weight_dropout=0.5)
    assert sum(p.numel() for p in model.parameters()) == 24_221_600


def test_the_layers_are_applied_one_after_the_other():
    model = LanguageModel("gru", 11, 4, 5, num_layers=2, tied=True)
    x = F.embedding(TOKENS.T, model.embedding.weight)
    for layer in model.layers:
        x = layer(x)[0]
    expected = x @ model.embedding.weight.T + model.softmax.bias
    torch.testing.assert_close(model(TOKENS).logits, expected.transpose(0, 1))
    assert model(TOKENS).logits.shape == (3, 9, 11)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_state_passed_on_makes_two_halves_one_whole(cell):
    model = LanguageModel(cell, 11, 4, 5, num_layers=2)
    whole = model(TOKENS)
    first = model(TOKENS[:, :4])
    second = model(TOKENS[:, 4:], first.state)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], 1), whole.logits)
    torch.testing.assert_close(second.state, whole.state)


def test_locked_dropout_drops_the_same_features_at_all_steps():
    x = torch.randn(7, 3, 50).abs() + 1
    dropout = LockedDropout(0.4)
    out = dropout(x)
    zero = out == 0
    assert torch.equal(zero, zero[:1].expand_as(zero))
    assert 0.2 < zero.float().mean() < 0.6
    torch.testing.assert_close(out[~zero], (x / 0.6)[~zero])
    assert dropout.eval()(x) is x


def test_dropped_words_are_dropped_wherever_they_occur():
    embedding = DropoutEmbedding(40, 6, 0.5)
    tokens = torch.arange(40).repeat(2, 1)
    first, second = embedding(tokens) == 0
    assert torch.equal(first, second)
    assert torch.equal(first.all(-1), first.any(-1))
    assert 5 < first.all(-1).sum() < 35
    torch.testing.assert_close(embedding.eval()(tokens)[0], embedding.weight)


@pytest.mark.parametrize("backend", ["reference", "aten"])
def test_dropped_recurrent_weights(backend):
    layer = seqnets.LSTM(3, 20, backend=backend)
    drop_recurrent_weights(layer, 0.5)
    x = torch.randn(5, 2, 3)
    drawn = layer.weight_hh_l0
    assert 0.3 < (drawn == 0).float().mean() < 0.7
    kept = drawn != 0
    original = layer.parametrizations.weight_hh_l0.original
    torch.testing.assert_close(drawn[kept], 2 * original[kept])
    torch.manual_seed(1)
    first = layer(x)[0]
    assert not torch.equal(first, layer(x)[0])  # drawn anew
    torch.manual_seed(1)
    torch.testing.assert_close(layer(x)[0], first)
    first.sum().backward()
    assert (original.grad == 0).float().mean() > 0.3  # dropped weights learn nothing
    layer.eval()
    assert torch.equal(layer.weight_hh_l0, original)


@pytest.mark.parametrize("wrong", [{"num_layers": 0}, {"layer_dropout": 1.0}, {"weight_dropout": -0.1}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LanguageModel("lstm", 11, 4, 5, **wrong)
