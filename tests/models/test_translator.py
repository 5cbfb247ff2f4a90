"""The translator: what pads does not matter, word by word is the whole, attention is what its equations say."""

import pytest
import torch
from torch import nn

import seqnets
from seqnets.models import Translator


def translator(cell="lstm", layers=1, **options):
    return Translator(
        nn.Embedding(12, 6),
        seqnets.Recurrent(cell, 6, 5, num_layers=layers, bidirectional=True),
        nn.Embedding(10, 7),
        seqnets.Recurrent(cell, 7, 4, num_layers=layers),
        **options,
    ).double()


INPUTS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 0, 0, 0], [4, 4, 4, 0, 0]])
LENGTHS = torch.tensor([5, 2, 3])
PREVIOUS = torch.tensor([[1, 3, 4, 5], [1, 6, 7, 0], [1, 2, 9, 3]])


@pytest.mark.parametrize(("cell", "layers"), [("lstm", 1), ("gru", 2), ("rnn_tanh", 1)])
def test_word_by_word_is_the_whole(cell, layers):
    model = translator(cell, layers)
    whole = model.logits(model(INPUTS, PREVIOUS, LENGTHS))
    assert whole.shape == (3, 4, 10)
    memory, state = model.encode(INPUTS, LENGTHS)
    for t in range(4):
        scores, state = model.step(PREVIOUS[:, t], state, memory)
        torch.testing.assert_close(scores, whole[:, t])


def test_layers_that_take_their_state_as_torchs_do():
    layers = seqnets.GRU(6, 5, bidirectional=True), seqnets.GRU(7, 4)
    model = Translator(nn.Embedding(12, 6), layers[0], nn.Embedding(10, 7), layers[1])
    memory, state = model.encode(INPUTS, LENGTHS)
    scores, _ = model.step(PREVIOUS[:, 0], state, memory)
    torch.testing.assert_close(scores, model.logits(model(INPUTS, PREVIOUS, LENGTHS))[:, 0])


def test_several_beginnings_of_each_source_share_what_was_read():
    model = translator()
    memory, state = model.encode(INPUTS, LENGTHS)
    words = torch.tensor([[1, 2], [3, 4], [5, 6]])
    twice = tuple(s.repeat_interleave(2, 1) for s in state)
    scores, _ = model.step(words.flatten(), twice, memory)
    for k in range(2):
        torch.testing.assert_close(scores.view(3, 2, -1)[:, k], model.step(words[:, k], state, memory)[0])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_padding_does_not_matter(cell):
    model = translator(cell)
    o = model(INPUTS, PREVIOUS, LENGTHS)
    alone = model(INPUTS[1:2, :2], PREVIOUS[1:2], None)
    torch.testing.assert_close(o[1:2], alone)
    with torch.no_grad():
        model.source.weight[0] = torch.nan  # that of the padding
    o = model(INPUTS, PREVIOUS, LENGTHS)
    torch.testing.assert_close(o[1:2], alone)
    o.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert (model.attention(INPUTS, PREVIOUS, LENGTHS)[1, :, 2:] == 0).all()


def test_later_words_do_not_matter_to_earlier_ones():
    model = translator()
    changed = PREVIOUS.clone()
    changed[:, 3] = 8
    left, right = model(INPUTS, PREVIOUS, LENGTHS), model(INPUTS, changed, LENGTHS)
    torch.testing.assert_close(left[:, :3], right[:, :3])
    assert not torch.allclose(left[:, 3], right[:, 3])


def test_it_is_what_its_equations_say():
    model = translator()
    h, final = model.encoder(model.source(INPUTS[:1].T))
    both = torch.cat([final[0][0], final[0][1]], -1)
    state = [bridge(both).tanh()[None] for bridge in model.bridges]
    y, _ = model.decoder(model.target(PREVIOUS[:1].T), tuple(state))
    a = torch.softmax(torch.stack([h[:, 0] @ model.score.weight.T @ y_t for y_t in y[:, 0]]), -1)
    o = (torch.cat([a @ h[:, 0], y[:, 0]], -1) @ model.combine.weight.T).tanh()
    torch.testing.assert_close(model.attention(INPUTS[:1], PREVIOUS[:1])[0], a)
    torch.testing.assert_close(model(INPUTS[:1], PREVIOUS[:1])[0], o)
    torch.testing.assert_close(model.logits(o), o @ model.target.weight.T + model.bias)


def test_dropout_is_of_training_only():
    model = translator(dropout=0.5)
    assert not torch.equal(model(INPUTS, PREVIOUS, LENGTHS), model(INPUTS, PREVIOUS, LENGTHS))
    model.eval()
    assert torch.equal(model(INPUTS, PREVIOUS, LENGTHS), model(INPUTS, PREVIOUS, LENGTHS))


def test_stacks_that_cannot_serve_are_refused():
    words = nn.Embedding(9, 3)
    for encoder, decoder, told in (
        (seqnets.GRU(3, 4), seqnets.GRU(3, 4, bidirectional=True), "cannot be bidirectional"),
        (seqnets.GRU(3, 4, batch_first=True), seqnets.GRU(3, 4), "batch_first=False"),
    ):
        with pytest.raises(ValueError, match=told):
            Translator(words, encoder, words, decoder)
