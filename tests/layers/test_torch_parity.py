"""`seqnets.LSTM`, `GRU` and `RNN` are `torch.nn`'s: parameters, outputs and gradients, over the grid of options."""

import itertools
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import seqnets

LAYERS = {
    "LSTM": (nn.LSTM, seqnets.LSTM, {}),
    "GRU": (nn.GRU, seqnets.GRU, {}),
    "RNN_TANH": (nn.RNN, seqnets.RNN, {"nonlinearity": "tanh"}),
    "RNN_RELU": (nn.RNN, seqnets.RNN, {"nonlinearity": "relu"}),
}
I, H, T, B = 4, 5, 6, 3
CASES = [
    (kind, dict(num_layers=n, bias=bias, batch_first=first, bidirectional=bi, **({"proj_size": proj} if proj else {})))
    for kind, n, bias, first, bi, proj in itertools.product(
        LAYERS, (1, 2), (True, False), (True, False), (True, False), (0, 3)
    )
    if kind == "LSTM" or not proj
]  # fmt: skip


def name(value):
    if isinstance(value, dict):
        return "-".join(k if v is True else f"{k}{v}" for k, v in value.items() if v) or "plain"
    return str(value)


def pair(kind, options, dtype=torch.float64, **extra):
    theirs, ours, fixed = LAYERS[kind]
    torch.manual_seed(0)
    a = theirs(I, H, dtype=dtype, **fixed, **options)
    torch.manual_seed(0)
    return a, ours(I, H, dtype=dtype, **fixed, **options, **extra)


def tensors(result):
    """All tensors of a layer's result, in one flat list."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, PackedSequence):
        return [result.data, result.batch_sizes]
    return [t for part in result for t in tensors(part)]


def inputs(form, layer, with_state):
    rows = 1 if form == "unbatched" else B
    x = torch.randn(B, T, I, dtype=torch.float64) if layer.batch_first else torch.randn(T, B, I, dtype=torch.float64)
    if form == "unbatched":
        x = torch.randn(T, I, dtype=torch.float64)
    x.requires_grad_()
    given = x
    if form == "packed-sorted":
        given = pack_padded_sequence(x, torch.tensor([6, 4, 1]), layer.batch_first)
    elif form == "packed-unsorted":
        given = pack_padded_sequence(x, torch.tensor([2, 6, 4]), layer.batch_first, enforce_sorted=False)
    if not with_state:
        return x, given, None
    n = layer.num_layers * (2 if layer.bidirectional else 1)
    sizes = [layer.proj_size or H, H] if layer.mode == "LSTM" else [H]
    shapes = [(n, s) if form == "unbatched" else (n, rows, s) for s in sizes]
    state = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    return x, given, state if len(state) > 1 else state[0]


@pytest.mark.parametrize(("kind", "options"), CASES, ids=name)
def test_parameters_are_bitwise_equal_under_one_seed_and_load_both_ways(kind, options):
    a, b = pair(kind, options, torch.float32)
    assert list(a.state_dict()) == list(b.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert [[tuple(w.shape) for w in ws] for ws in a.all_weights] == [
        [tuple(w.shape) for w in ws] for ws in b.all_weights
    ]
    torch.manual_seed(1)
    a.reset_parameters()
    b.load_state_dict(a.state_dict(), strict=True)
    b.reset_parameters()
    a.load_state_dict(b.state_dict(), strict=True)
    assert torch.equal(a.weight_hh_l0, b.weight_hh_l0)


@pytest.mark.parametrize("backend", ["aten", "reference"])
@pytest.mark.parametrize("with_state", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("form", ["batched", "unbatched", "packed-sorted", "packed-unsorted"])
@pytest.mark.parametrize(("kind", "options"), CASES, ids=name)
def test_outputs_and_gradients_agree(kind, options, form, with_state, backend):
    a, b = pair(kind, options, backend=backend)
    x, given, state = inputs(form, a, with_state)
    leaves = [x, *(tensors(state) if with_state else [])]
    grads = []
    results = []
    for layer in (a, b):
        result = layer(given, state)
        results.append(result)
        torch.manual_seed(7)  # the same random cotangents for y, h_n and c_n
        floating = [t for t in tensors(result) if t.is_floating_point()]
        cotangents = [torch.randn_like(t) for t in floating]
        grads.append(torch.autograd.grad(floating, [*leaves, *layer.parameters()], cotangents, retain_graph=True))
    assert type(results[1][0]) is type(results[0][0])
    assert isinstance(results[1][1], tuple if kind == "LSTM" else torch.Tensor)
    for p, q in zip(tensors(results[0]), tensors(results[1]), strict=True):
        torch.testing.assert_close(q, p, rtol=1e-10, atol=1e-12)
    for p, q in zip(*grads, strict=True):
        torch.testing.assert_close(q, p, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("part", ["y", "h_n", "c_n"])
@pytest.mark.parametrize("backend", ["aten", "reference"])
def test_gradients_of_each_output_alone(part, backend):
    a, b = pair("LSTM", {"num_layers": 2, "bidirectional": True}, backend=backend)
    x, _, state = inputs("batched", a, True)
    grads = []
    for layer in (a, b):
        y, (h, c) = layer(x, state)
        torch.manual_seed(7)
        out = {"y": y, "h_n": h, "c_n": c}[part]
        grads.append(
            torch.autograd.grad(out, [x, *state, *layer.parameters()], torch.randn_like(out), allow_unused=True)
        )
    for p, q in zip(*grads, strict=True):
        p, q = (torch.zeros(()) if g is None else g for g in (p, q))
        torch.testing.assert_close(*torch.broadcast_tensors(q.double(), p.double()), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("backend", ["aten", "reference"])
@pytest.mark.parametrize("kind", LAYERS)
def test_dropout_is_off_in_eval_and_at_zero_and_drops_at_its_rate(kind, backend):
    a, b = pair(kind, {"num_layers": 2, "dropout": 0.5}, backend=backend)
    x = torch.randn(T, B, I, dtype=torch.float64)
    assert not torch.equal(b(x)[0], b(x)[0])
    a.eval(), b.eval()
    torch.testing.assert_close(b(x)[0], a(x)[0])
    b.train()
    b.dropout = 0.0
    torch.testing.assert_close(b(x)[0], a(x)[0])
    # in distribution: the second layer's input projection sees a mean that dropout leaves alone, and more variance
    a.train()
    b.dropout = 0.5
    many = [torch.stack([layer(x)[0].mean() for _ in range(400)]).detach() for layer in (a, b)]
    spread = (many[0].var() / 400 + many[1].var() / 400).sqrt()
    assert (many[0].mean() - many[1].mean()).abs() < 4 * spread
    assert 0.6 < (many[1].std() / many[0].std()) < 1.6


def test_the_step_modules_are_torchs():
    for theirs, ours, options in (
        (nn.LSTMCell, seqnets.LSTMCell, {}),
        (nn.GRUCell, seqnets.GRUCell, {}),
        (nn.RNNCell, seqnets.RNNCell, {"nonlinearity": "relu"}),
    ):
        for bias, backend, rows, with_state in itertools.product(
            (True, False), ("aten", "reference"), (None, 3), (True, False)
        ):
            torch.manual_seed(0)
            a = theirs(I, H, bias=bias, dtype=torch.float64, **options)
            torch.manual_seed(0)
            b = ours(I, H, bias=bias, dtype=torch.float64, backend=backend, **options)
            assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
            b.load_state_dict(a.state_dict())
            shape = (rows,) if rows else ()
            x = torch.randn(*shape, I, dtype=torch.float64, requires_grad=True)
            h, c = torch.randn(2, *shape, H, dtype=torch.float64)
            state = ((h, c) if theirs is nn.LSTMCell else h) if with_state else None
            outs = [tensors(m(x, state)) for m in (a, b)]
            for p, q in zip(*outs, strict=True):
                torch.testing.assert_close(q, p)
            grads = [
                torch.autograd.grad(sum(o.sin().sum() for o in out), [x, *m.parameters()])
                for m, out in zip((a, b), outs, strict=True)
            ]
            for p, q in zip(*grads, strict=True):
                torch.testing.assert_close(q, p)
            with pytest.raises(RuntimeError, match="input_size"):
                b(torch.randn(2, I + 1, dtype=torch.float64))
            with pytest.raises(RuntimeError, match="hidden"):
                b(x, (h[..., :2], c[..., :2]) if theirs is nn.LSTMCell else h[..., :2])
            with pytest.raises(ValueError, match="1D or 2D"):
                b(torch.randn(2, 2, I, dtype=torch.float64))
            with pytest.raises(RuntimeError, match="dtype"):
                b(x.detach().float())
            with pytest.raises(TypeError, match="must be a tensor"):
                b([1.0])


@pytest.mark.parametrize("kind", LAYERS)
def test_what_code_written_for_torch_looks_at(kind):
    a, b = pair(kind, {"num_layers": 2, "bidirectional": True})
    assert isinstance(b, nn.RNNBase)
    for attribute in (
        "mode",
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
        "proj_size",
    ):
        assert getattr(a, attribute) == getattr(b, attribute)
    assert a._flat_weights_names == b._flat_weights_names
    assert len(a._flat_weights) == len(b._flat_weights)
    b.flatten_parameters()


@pytest.mark.parametrize("kind", LAYERS)
def test_positional_arguments_mean_what_they_mean_in_torch(kind):
    theirs, ours, _ = LAYERS[kind]
    extra = ("relu",) if "RNN" in kind else ()
    arguments = (I, H, 2, *extra, False, True, 0.5, True)
    a, b = theirs(*arguments), ours(*arguments)
    assert (a.bias, a.batch_first, a.dropout, a.bidirectional) == (b.bias, b.batch_first, b.dropout, b.bidirectional)
    assert a.mode == b.mode


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"dropout": 1.5}, ValueError),
        ({"dropout": True}, ValueError),
        ({"hidden_size": 0}, ValueError),
        ({"hidden_size": 2.0}, TypeError),
        ({"input_size": -1}, ValueError),
        ({"num_layers": 0}, ValueError),
        ({"bias": 1}, TypeError),
        ({"batch_first": "yes"}, TypeError),
        ({"proj_size": 5}, ValueError),
        ({"proj_size": -1}, ValueError),
    ],
    ids=str,
)
def test_options_that_torch_refuses_are_refused(options, error):
    for layer in (nn.LSTM, seqnets.LSTM):
        with pytest.raises(error):
            layer(**{"input_size": I, "hidden_size": H, **options})


def test_inputs_that_torch_refuses_are_refused():
    for layer in (nn.LSTM(I, H), seqnets.LSTM(I, H), seqnets.LSTM(I, H, backend="reference")):
        with pytest.raises(ValueError, match="2D or 3D"):
            layer(torch.randn(2, 2, 2, I))
        with pytest.raises(RuntimeError, match="input_size"):
            layer(torch.randn(T, B, I + 1))
        with pytest.raises(ValueError, match="dtype"):
            layer(torch.randn(T, B, I, dtype=torch.float64))
        with pytest.raises(RuntimeError):
            layer(torch.randn(T, B, I), (torch.zeros(1, B + 1, H), torch.zeros(1, B, H)))
        with pytest.raises(RuntimeError):
            layer(torch.randn(T, I), (torch.zeros(1, B, H), torch.zeros(1, B, H)))
    with pytest.raises(RuntimeError, match="meta"):
        seqnets.LSTM(I, H)(torch.randn(T, B, I, device="meta"))
    with pytest.raises(ValueError, match="nonlinearity"):
        seqnets.RNN(I, H, nonlinearity="sin")
    for kind in (nn.GRU, seqnets.GRU, nn.RNN, seqnets.RNN):
        with pytest.raises(ValueError, match="only supported for LSTM"):
            kind(I, H, proj_size=2)


@pytest.mark.parametrize("mode", ["LSTM", "GRU", "RNN"])
def test_autocast_gives_its_dtype_by_every_backend(mode):
    """torch's own give float32 on the CPU, but for the LSTM over padded sequences."""
    x, lengths = torch.randn(6, 3, 4), torch.tensor([6, 2, 4])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    for backend in ("auto", "aten", "cpp", "reference"):
        layer = getattr(seqnets, mode)(4, 5, backend=backend)
        for given, options in ((x, {}), (x, {"lengths": lengths}), (packed, {})):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y, state = layer(given, **options)
            y = y if isinstance(y, torch.Tensor) else y.data
            assert {t.dtype for t in (y, *torch.utils._pytree.tree_leaves(state))} == {torch.bfloat16}


def test_autocast_gives_the_dtypes_that_torch_gives():
    x = torch.randn(T, B, I)
    for backend in ("aten", "reference"):
        for theirs, ours in ((nn.LSTMCell, seqnets.LSTMCell), (nn.GRUCell, seqnets.GRUCell)):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                step, expected = ours(I, H, backend=backend)(x[0]), theirs(I, H)(x[0])
            assert [t.dtype for t in tensors(step)] == [t.dtype for t in tensors(expected)]
        a, b = pair("LSTM", {"num_layers": 2}, torch.float32, backend=backend)
        projected = torch.nn.Linear(I, I)(x).bfloat16()  # as another layer under autocast gives it
        for given in (x, projected):
            with torch.autocast("cpu", dtype=torch.bfloat16), warnings.catch_warnings():
                results = tensors(b(given))
                try:
                    expected = tensors(a(given))
                except RuntimeError as error:  # torch's own fails without AVX-512, and ours does not
                    if "primitive descriptor" not in str(error):
                        raise
                    with torch.autocast("cpu", enabled=False):
                        expected = [t.bfloat16() for t in tensors(a(given.float()))]
            for p, q in zip(expected, results, strict=True):
                assert q.dtype == p.dtype == torch.bfloat16
                torch.testing.assert_close(q, p, rtol=5e-2, atol=2e-2)
