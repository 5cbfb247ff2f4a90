"""Tensors that handle operations themselves (`__torch_function__`): the reference serves, and is right."""

import pytest
import torch
from torch.nn.utils import _per_sample_grad

import seqnets
from seqnets.errors import BackendError
from tests.recurrences import normed, traced


@seqnets.cell(gates=2, states=("h",))
def gated(x, r, state):
    return (x[0] + r[0]).sigmoid() * (x[1] + r[1]).tanh()


class Logged(torch.Tensor):
    """Notes what is done to it."""

    calls = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.calls.append(function)
        return super().__torch_function__(function, types, args, kwargs or {})


def per_sample(module, x, batch_dim):
    """Gradients of each sample, as PyTorch's own wrapper of weights computes them."""
    batch = x.shape[batch_dim]
    wrapped = _per_sample_grad.call_for_per_sample_grads(
        module, batch_size=batch, loss_reduction="sum", batch_first=batch_dim == 0
    )
    y = wrapped(x)
    (y if isinstance(y, torch.Tensor) else y[0]).square().sum().backward()
    return [parameter.grad_sample for parameter in module.parameters()]


def one_by_one(module, x, batch_dim):
    """The same, from a call for each sample."""
    found = []
    for sample in x.split(1, batch_dim):
        y = module(sample)
        loss = (y if isinstance(y, torch.Tensor) else y[0]).square().sum()
        found.append(torch.autograd.grad(loss, list(module.parameters())))
    return [torch.stack(gradients) for gradients in zip(*found, strict=True)]


LAYERS = {
    "lstm": lambda **options: seqnets.LSTM(3, 5, **options),
    "gru, two layers": lambda **options: seqnets.GRU(3, 5, num_layers=2, **options),
    "bidirectional": lambda **options: seqnets.RNN(3, 5, bidirectional=True, **options),
    "projected": lambda **options: seqnets.LSTM(3, 5, proj_size=2, **options),
    "a cell of one's own": lambda **options: seqnets.Recurrent(gated, 3, 5, **options),
    "a row reduction": lambda **options: seqnets.Recurrent(normed, 3, 5, **options),
}


@pytest.mark.parametrize("T", [4, 6])  # as many as rows, where dimensions could be taken for each other, and others
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_per_sample_gradients_are_those_of_each_sample(make, batch_first, T, monkeypatch):
    monkeypatch.delenv("SEQNETS_MEASURE")  # as users call it
    layer, batch_dim = make(batch_first=batch_first), int(not batch_first)
    x = torch.randn(4, T, 3) if batch_first else torch.randn(T, 4, 3)
    torch.testing.assert_close(per_sample(layer, x, batch_dim), one_by_one(layer, x, batch_dim), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [seqnets.LSTMCell, seqnets.GRUCell, seqnets.RNNCell])
def test_per_sample_gradients_of_a_step(kind):
    module, x = kind(3, 5), torch.randn(4, 3)

    def first(output):
        return output[0] if isinstance(output, tuple) else output

    class Alone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x):
            return first(self.inner(x))

    alone = Alone()
    torch.testing.assert_close(per_sample(alone, x, 0), one_by_one(alone, x, 0), rtol=1e-4, atol=1e-5)


def test_what_a_wrapper_cannot_handle_raises():
    layer = seqnets.Recurrent(traced, 3, 5)  # PyTorch has no rule for the product with the cell's parameter
    with pytest.raises(RuntimeError, match="cannot handle"):
        per_sample(layer, torch.randn(4, 4, 3), 1)


@pytest.mark.parametrize("which", ["weight", "input", "state"])
@pytest.mark.parametrize("cell", ["lstm", "benchmarks.cells:light"])
def test_the_reference_serves_and_others_say_why_not(which, cell):
    layer, x = seqnets.Recurrent(cell, 3, 5), torch.randn(4, 2, 3)
    state = tuple(torch.randn(1, 2, 5) for _ in layer.cell.states)
    expected = layer(x, state)[0]
    if which == "weight":
        layer.weight_hh_l0 = torch.nn.Parameter(layer.weight_hh_l0.detach().as_subclass(Logged))
    x = x.as_subclass(Logged) if which == "input" else x
    state = tuple(s.as_subclass(Logged) for s in state) if which == "state" else state
    Logged.calls = []
    explained = seqnets.explain(layer, x, state)
    assert explained.backend == "reference"
    assert "Logged" in explained.reasons["aten"] or cell != "lstm"
    assert "Logged" in explained.reasons["cpp"] and "__torch_function__" in explained.reasons["cpp"]
    Logged.calls = []
    y = layer(x, state)[0]
    assert any("linear" in str(function) for function in Logged.calls)
    torch.testing.assert_close(y.as_subclass(torch.Tensor), expected)
    layer.backend = "cpp"
    with pytest.raises(BackendError, match="handles each operation itself"):
        layer(x, state)
