"""The classifier is the sum of its parts."""

import pytest
import torch
from torch import nn

import seqnets
from seqnets.models import ConvFront, SequenceClassifier


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_four_models_of_the_source_documents_have_their_parameter_counts():
    keras = {"recurrent_bias": False, "init": "keras"}
    bilstm = SequenceClassifier(
        seqnets.LSTM(128, 64, num_layers=2, bidirectional=True, **keras), embedding=nn.Embedding(20_000, 128)
    )
    cnn_lstm = SequenceClassifier(
        seqnets.LSTM(64, 70, **keras), embedding=nn.Embedding(20_000, 128), front=ConvFront(128, 64, 5, 4, dropout=0.25)
    )
    lstm = SequenceClassifier(seqnets.LSTM(32, 100, **keras), embedding=nn.Embedding(5000, 32))
    mnist = SequenceClassifier(
        seqnets.LSTM(28, 128, num_layers=2, dropout=0.2, **keras), num_classes=10, head_sizes=(64,), head_dropout=0.2
    )
    assert [count(m) for m in (bilstm, cnn_lstm, lstm, mnist)] == [2_757_761, 2_638_895, 213_301, 220_874]
    assert mnist(torch.randn(3, 28, 28)).shape == (3, 10)
    assert cnn_lstm(torch.randint(0, 20_000, (3, 100))).shape == (3,)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_last_is_the_final_state_of_each_direction(cell):
    recurrent = seqnets.Recurrent(cell, 4, 5, num_layers=2, bidirectional=True)
    model = SequenceClassifier(recurrent, embedding=nn.Embedding(10, 4))
    tokens = torch.randint(0, 10, (3, 7))
    y, _ = recurrent(model.embedding(tokens.T))
    # the reverse direction has read everything at the first step
    expected = model.head(torch.cat([y[-1, :, :5], y[0, :, 5:]], dim=-1))[:, 0]
    torch.testing.assert_close(model(tokens), expected)


def test_pooling_over_time():
    recurrent = seqnets.GRU(4, 5)
    x = torch.randn(3, 7, 4)
    y = recurrent(x.transpose(0, 1))[0]
    for pooling, pooled in (("mean", y.mean(0)), ("max", y.max(0).values), ("last", y[-1])):
        model = SequenceClassifier(recurrent, num_classes=3, pooling=pooling)
        torch.testing.assert_close(model(x), model.head(pooled))


def test_the_front_is_keras_conv1d_relu_and_max_pooling():
    front = ConvFront(4, 6, kernel_size=3, pool_size=2)
    x = torch.randn(9, 2, 4)
    out = front(x)
    assert out.shape == (3, 2, 6)
    window = torch.stack([x[t : t + 3] for t in range(7)])  # (7, 3, B, 4)
    features = torch.einsum("tkbi,oik->tbo", window, front.convolution.weight) + front.convolution.bias
    torch.testing.assert_close(out, features.relu()[:6].reshape(3, 2, 2, 6).amax(1), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="too short"):
        front(x[:3])


def test_keras_initialisation_reaches_every_part():
    model = SequenceClassifier(
        seqnets.GRU(6, 8), embedding=nn.Embedding(50, 4), front=ConvFront(4, 6, 3), head_sizes=(16,), init="keras"
    )
    assert model.embedding.weight.abs().max() <= 0.05
    assert not model.front.convolution.bias.any()
    assert not model.head[0].bias.any()
    assert model.head[0].weight.abs().max() <= (6 / (8 + 16)) ** 0.5
    # Keras counts a convolution's fans as kernel_size times the channels, as torch does
    assert model.front.convolution.weight.abs().max() <= (6 / (3 * (4 + 6))) ** 0.5


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="last, mean, max"):
        SequenceClassifier(seqnets.GRU(3, 4), pooling="first")
    with pytest.raises(ValueError, match="torch, keras"):
        SequenceClassifier(seqnets.GRU(3, 4), init="zeros")
    with pytest.raises(ValueError, match="batch_first=False"):
        SequenceClassifier(seqnets.GRU(3, 4, batch_first=True))
    with pytest.raises(ValueError, match="num_classes=1"):
        SequenceClassifier(seqnets.GRU(3, 4), num_classes=1)
