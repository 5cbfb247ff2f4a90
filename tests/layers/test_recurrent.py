"""`Recurrent` over any cell: derivatives, ragged batches, states, streaming, masks, and what nn.Module users do."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence

import seqnets
from seqnets.backends import aten
from seqnets.errors import BackendError
from tests.cells import zoo
from tests.tolerance import assert_within_policy

STANDARD = [c.name for c in aten.OPERATIONS]
backends_of = [(name, "reference") for name in zoo.ALL] + [(name, "aten") for name in STANDARD]


def double(name, I=3, H=4, **options):
    layer = zoo.layer(name, I, H, dtype=torch.float64, **options)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return layer


def states_for(layer, B):
    rows = layer.num_layers * layer.num_directions
    return tuple(torch.randn(rows, B, size, dtype=torch.float64) for _, size in layer._state_sizes())


@pytest.mark.parametrize("lengths", [None, [3, 0, 1]], ids=["full", "ragged"])
@pytest.mark.parametrize("name", zoo.ALL)
def test_first_and_second_derivatives(name, lengths):
    layer = double(name, 2, 3, backend="reference", bidirectional=True)
    x = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
    state = tuple(s.requires_grad_() for s in states_for(layer, 3))
    lengths = None if lengths is None else torch.tensor(lengths)
    names, weights = zip(*layer.named_parameters(), strict=True)

    def run(x, *rest):
        torch.manual_seed(0)  # the same masks at every evaluation
        initial, values = rest[: len(state)], dict(zip(names, rest[len(state) :], strict=True))
        y, final = torch.func.functional_call(layer, values, (x, initial, lengths))
        return y, *final

    inputs = (x, *state, *weights)
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize(("name", "backend"), backends_of)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "two-way"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_lengths_are_as_each_row_alone(name, backend, bidirectional, num_layers):
    layer = double(name, num_layers=num_layers, bidirectional=bidirectional, backend=backend).eval()
    lengths = torch.tensor([5, 0, 7, 1])
    clean = torch.randn(7, 4, 3, dtype=torch.float64)
    padded = clean.clone()
    for row, n in enumerate(lengths):
        padded[n:, row] = float("nan")
    padded.requires_grad_()
    state = tuple(s.requires_grad_() for s in states_for(layer, 4))
    y, final = layer(padded, state, lengths)
    leaves = [padded, *state, *layer.parameters()]
    grads = torch.autograd.grad([y, *final], leaves, [y.detach().cos(), *(f.detach().cos() for f in final)])

    expected_y = torch.zeros_like(y)
    expected_final = [s.detach().clone() for s in state]
    alone = [torch.zeros_like(leaf) for leaf in leaves]
    for row, n in enumerate(lengths):
        x_row = clean[:n, row : row + 1].clone().requires_grad_()
        s_row = [s[:, row : row + 1].detach().clone().requires_grad_() for s in state]
        y_row, f_row = layer(x_row, s_row) if n else (torch.zeros(0, 1, y.shape[-1], dtype=y.dtype), s_row)
        expected_y[:n, row] = y_row.detach()[:, 0]
        for e, f in zip(expected_final, f_row, strict=True):
            e[:, row] = f.detach()[:, 0]
        outs = [*([y_row] if n else []), *f_row]
        leaves_row = [x_row, *s_row, *layer.parameters()]
        g_row = torch.autograd.grad(outs, leaves_row, [o.detach().cos() for o in outs], allow_unused=True)
        g_row = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(g_row, leaves_row, strict=True)]
        alone[0][:n, row] = g_row[0][:, 0]
        for k in range(len(state)):
            alone[1 + k][:, row] = g_row[1 + k][:, 0]
        for total, g in zip(alone[1 + len(state) :], g_row[1 + len(state) :], strict=True):
            total += g

    torch.testing.assert_close(y, expected_y)
    for f, e in zip(final, expected_final, strict=True):
        torch.testing.assert_close(f, e)
    for g, e in zip(grads, alone, strict=True):
        torch.testing.assert_close(g, e)


@pytest.mark.parametrize("backend", ["aten", "reference"])
def test_lengths_and_packing_agree(backend):
    layer = double("lstm", num_layers=2, bidirectional=True, batch_first=True, backend=backend)
    x, lengths = torch.randn(3, 6, 3, dtype=torch.float64), torch.tensor([2, 6, 4])
    state = states_for(layer, 3)
    y, final = layer(x, state, lengths)
    packed, packed_final = layer(pack_padded_sequence(x, lengths, True, enforce_sorted=False), state)
    again = pack_padded_sequence(y, lengths, True, enforce_sorted=False)
    torch.testing.assert_close(packed.data, again.data)
    for p, q in zip(final, packed_final, strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize(("name", "backend"), [c for c in backends_of if c != ("lstm", "aten")])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "two-way"])
def test_all_states_are_the_states_after_each_step(name, backend, ragged, bidirectional):
    layer = double(name, num_layers=2, bidirectional=bidirectional, backend=backend, return_all_states=True).eval()
    lengths = torch.tensor([4, 2, 0]) if ragged else torch.tensor([4, 4, 4])
    x, initial = torch.randn(4, 3, 3, dtype=torch.float64), states_for(layer, 3)
    y, final, every = layer(x, initial, lengths if ragged else None)
    assert every._fields == layer.cell.states
    H = layer.hidden_size
    for number, states in enumerate(every):
        assert states.shape == (4, 3, H * layer.num_directions)
        for row, n in enumerate(lengths):
            forward = states[:, row, :H]
            # a finished row keeps its state; a reverse row that has not begun has its initial one
            torch.testing.assert_close(
                forward[max(n - 1, 0) :],
                (final if n else initial)[number][layer.num_directions * 1, row].expand(4 - max(n - 1, 0), H),
            )
            if bidirectional:
                backward = states[:, row, H:]
                torch.testing.assert_close(backward[0], final[number][3, row])
                torch.testing.assert_close(backward[n:], initial[number][3, row].expand(4 - n, H))
    torch.testing.assert_close(y[: int(lengths.min())], every[0][: int(lengths.min())])


def test_all_states_of_a_single_call_and_of_the_drop_ins():
    layer = seqnets.LSTM(3, 4, batch_first=True)
    x = torch.randn(2, 5, 3)
    y, (_, c), every = layer(x, return_all_states=True)
    assert every.c.shape == (2, 5, 4)
    torch.testing.assert_close(every.c[:, -1], c[0])
    torch.testing.assert_close(every.h, y)
    assert len(layer(x)) == 2
    assert seqnets.GRU(3, 4, return_all_states=True)(x)[2]._fields == ("h",)
    assert seqnets.GRU(3, 4)(x[0], return_all_states=True)[2].h.shape == (5, 4)


@pytest.mark.parametrize(("name", "backend"), backends_of)
def test_streaming_equals_the_sequence(name, backend):
    layer = double(name, num_layers=2, backend=backend).eval()
    x, state = torch.randn(5, 2, 3, dtype=torch.float64), None
    y, final = layer(x)
    for t in range(5):
        y_t, state = layer.step(x[t], state)
        torch.testing.assert_close(y_t, y[t])
    for p, q in zip(state, final, strict=True):
        torch.testing.assert_close(p, q)


def test_streaming_of_the_drop_ins_and_its_refusals():
    gru, x = seqnets.GRU(3, 4, batch_first=True), torch.randn(2, 5, 3)
    y, h = gru.step(x[:, 0])
    assert y.shape == (2, 4)
    assert h.shape == (1, 2, 4)
    y, h = gru.step(x[0, 0])
    assert (y.shape, h.shape) == ((4,), (1, 4))
    with pytest.raises(RuntimeError, match="bidirectional"):
        seqnets.GRU(3, 4, bidirectional=True).step(x[:, 0])
    with pytest.raises(RuntimeError, match="one step takes"):
        gru.step(x)
    with pytest.raises(RuntimeError, match="per sequence"):
        zoo.layer("zoneout_gru", 3, 4).step(x[:, 0])


def test_masks_are_drawn_at_their_rate_and_are_their_mean_in_eval():
    like = torch.empty(0, dtype=torch.float64)
    mask = seqnets.Mask(0.25, per="step").draw(50, 20, 30, like, training=True)
    assert mask.shape == (50, 20, 30)
    assert set(mask.unique().tolist()) == {0.0, 1 / 0.75}
    assert abs(mask.mean() - 1) < 0.02
    once = seqnets.Mask(0.25, scale=False)
    assert set(once.draw(50, 20, 30, like, training=True).unique().tolist()) == {0.0, 1.0}
    assert torch.equal(once.draw(50, 20, 30, like, training=False), torch.full((20, 30), 0.75, dtype=torch.float64))
    for bad in ({"p": 1.0}, {"p": -0.1}, {"p": 0.5, "per": "batch"}):
        with pytest.raises(ValueError, match="mask"):
            seqnets.Mask(**bad)


@pytest.mark.parametrize(
    "masks", [None, {"keep": seqnets.Mask(0.1), "drop": seqnets.Mask(0.1)}, {"keep": 0.1}, seqnets.Mask(0.1)], ids=repr
)
def test_a_cell_with_masks_needs_exactly_those(masks):
    with pytest.raises(ValueError, match="masks= is"):
        seqnets.Recurrent(zoo.zoneout_gru, 3, 4, masks=masks)


def test_one_bias_per_gate_as_keras_counts():
    layer = seqnets.LSTM(128, 64, bidirectional=True, recurrent_bias=False)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 4 * (128 * 64 + 64 * 64 + 64)
    x, full = torch.randn(4, 2, 128), seqnets.LSTM(128, 64, bidirectional=True)
    full.load_state_dict(layer.state_dict(), strict=False)
    for name, p in full.named_parameters():
        if name.startswith("bias_hh"):
            nn.init.zeros_(p)
    for backend in ("aten", "reference"):
        layer.backend = backend
        torch.testing.assert_close(layer(x)[0], full(x)[0])
        layer(x)[0].sum().backward()
        assert layer.bias_ih_l0.grad.abs().sum() > 0
    assert "bias_ih_l0" not in seqnets.LSTM(3, 4, bias=False, recurrent_bias=False).state_dict()


def test_keras_initialisation():
    layer = seqnets.LSTM(50, 40, init="keras")
    limit = (6 / (50 + 4 * 40)) ** 0.5
    assert 0.95 * limit < layer.weight_ih_l0.abs().max() <= limit
    torch.testing.assert_close(layer.weight_hh_l0.T @ layer.weight_hh_l0, torch.eye(40))
    i, f, g, o = layer.bias_ih_l0.chunk(4)
    assert torch.equal(f, torch.ones(40))
    assert not torch.stack([i, g, o]).any()
    assert not layer.bias_hh_l0.any()
    assert not seqnets.GRU(5, 4, init="keras").bias_ih_l0.any()
    with pytest.raises(ValueError, match="choose from torch, keras"):
        seqnets.LSTM(3, 4, init="kares")


@pytest.mark.parametrize("backend", ["aten", "reference"])
def test_learned_initial_states(backend):
    layer = seqnets.LSTM(3, 4, num_layers=2, proj_size=2, learn_state=True, backend=backend)
    assert (layer.initial_h.shape, layer.initial_c.shape) == ((2, 2), (2, 4))
    nn.init.normal_(layer.initial_c)
    x = torch.randn(5, 3, 3)
    explicit = tuple(p.detach()[:, None].repeat(1, 3, 1) for p in (layer.initial_h, layer.initial_c))
    torch.testing.assert_close(layer(x)[0], layer(x, explicit)[0])
    layer(x)[0].sum().backward()
    assert layer.initial_c.grad.abs().sum() > 0


@pytest.mark.parametrize("backend", ["aten", "reference"])
def test_weights_are_read_at_each_forward(backend):
    layer = seqnets.LSTM(3, 4, backend=backend)
    x = torch.randn(5, 2, 3)
    before = layer(x)[0]
    layer.weight_hh_l0 = nn.Parameter(torch.zeros_like(layer.weight_hh_l0))
    assert not torch.allclose(layer(x)[0], before)
    parametrizations.weight_norm(layer, "weight_ih_l0")
    plain = layer(x)[0]
    with torch.no_grad():
        layer.parametrizations.weight_ih_l0.original0.mul_(2.0)
    assert not torch.allclose(layer(x)[0], plain)
    layer(x)[0].sum().backward()
    assert layer.parametrizations.weight_ih_l0.original0.grad is not None
    assert copy.deepcopy(layer)(x)[0].shape == (5, 2, 4)


@pytest.mark.parametrize("make", [lambda: seqnets.LSTM(3, 4), lambda: zoo.layer("layernorm_lstm", 3, 4)])
def test_copies_pickles_and_casts(make):
    layer = make().eval()
    x = torch.randn(5, 2, 3)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(x)[0], layer(x)[0])
        assert other.weight_hh_l0 is not layer.weight_hh_l0
    assert layer.double()(x.double())[0].dtype == torch.float64
    assert layer.to(torch.float32)(x)[0].dtype == torch.float32
    assert layer.to("meta").weight_hh_l0.is_meta


def test_functional_transforms_and_forward_mode():
    layer = seqnets.LSTM(3, 4, dtype=torch.float64)
    x = torch.randn(6, 6, 2, 3, dtype=torch.float64)
    each = torch.func.vmap(lambda x: layer(x)[0])(x)
    torch.testing.assert_close(each, torch.stack([layer(one)[0] for one in x]))
    lengths = torch.tensor([[6, 2], [0, 5], [1, 1], [3, 4], [5, 6], [2, 0]])
    ragged = torch.func.vmap(lambda x, n: layer(x, lengths=n)[0])(x, lengths)
    torch.testing.assert_close(ragged[2], layer(x[2], lengths=lengths[2])[0])
    values = dict(layer.named_parameters())

    def loss(values, x):
        return torch.func.functional_call(layer, values, (x,))[0].square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0))(values, x)
    expected = torch.autograd.grad(loss(values, x[3]), layer.weight_hh_l0)[0]
    torch.testing.assert_close(per_sample["weight_hh_l0"][3], expected)
    tangent = torch.randn_like(x[0])
    _, forward = torch.func.jvp(lambda x: layer(x)[0], (x[0],), (tangent,))
    torch.testing.assert_close(forward, torch.autograd.functional.jvp(lambda x: layer(x)[0], x[0], tangent)[1])


def test_gradients_in_eval_and_second_order_through_auto():
    layer = seqnets.LSTM(3, 4).eval()
    x = torch.randn(5, 2, 3, requires_grad=True)
    (g,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    g.square().sum().backward()
    assert layer.weight_hh_l0.grad.abs().sum() > 0


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("make", [seqnets.LSTM, seqnets.GRU])
def test_compiles_to_one_graph(make, backend):
    layer = make(3, 4, backend=backend)
    x = torch.randn(5, 2, 3)
    with torch.no_grad():
        state = layer(x)[1]
    for arguments in ((x,), (x, state), (x, state, torch.tensor([2, 0]))):
        torch._dynamo.reset()
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*arguments)[0], layer(*arguments)[0])
        compiled(*arguments)[0].sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x)[0], layer(x)[0])
    x.requires_grad_()
    torch.testing.assert_close(compiled(x)[0], layer(x)[0])


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_compiles_to_one_graph_under_autocast(backend):
    layer, x = seqnets.LSTM(3, 4, backend=backend), torch.randn(5, 2, 3)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual, expected = compiled(x)[0], layer(x)[0]
    actual.sum().backward()
    assert_within_policy(actual, expected, copy.deepcopy(layer).double()(x.double())[0], "y")


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
def test_exports(ragged):
    layer, x = seqnets.GRU(3, 4).eval(), torch.randn(5, 2, 3)
    arguments = (x, None, torch.tensor([2, 4])) if ragged else (x,)
    program = torch.export.export(layer, arguments).module()
    torch.testing.assert_close(program(*arguments)[0], layer(*arguments)[0])


def test_an_exported_program_that_returns_the_state_is_saved_and_loaded(tmp_path):
    layer, x = seqnets.LSTM(3, 4), torch.randn(5, 2, 3)
    torch.export.save(torch.export.export(layer, (x,)), tmp_path / "program.pt2")
    y, state = torch.export.load(tmp_path / "program.pt2").module()(x)
    expected, (h, c) = layer(x)
    torch.testing.assert_close((y, state.h, state.c), (expected, h, c))


def test_a_compiled_vmap_is_served_too():
    layer, x = seqnets.LSTM(3, 4), torch.randn(2, 5, 2, 3)
    each = torch.func.vmap(lambda x: layer(x)[0])
    torch.testing.assert_close(torch.compile(each, fullgraph=True, backend="eager")(x), each(x))


def test_auto_serves_where_torchs_own_operations_do_not():
    layer, x = seqnets.LSTM(3, 4), torch.randn(5, 2, 3)
    with torch.autocast("cpu", dtype=torch.float16):
        assert layer(x)[0].dtype == torch.float16
    meta = seqnets.LSTM(3, 4, device="meta")
    assert meta(x.to("meta"), lengths=torch.tensor([2, 0]))[0].shape == (5, 2, 4)
    assert zoo.layer("peephole_lstm", 3, 4, device="meta")(x.to("meta"))[0].is_meta


def test_packed_input_under_another_default_device():
    layer, packed = seqnets.LSTM(3, 4), pack_padded_sequence(torch.randn(5, 2, 3), torch.tensor([5, 2]))
    expected = layer(packed)[0].data
    with torch.device("meta"):
        torch.testing.assert_close(layer(packed)[0].data, expected)


def test_hooks_see_single_steps():
    layer, seen = seqnets.GRU(3, 4), []
    layer.register_forward_hook(lambda *_: seen.append(1))
    layer.step(torch.randn(2, 3))
    assert seen == [1]


@pytest.mark.parametrize("backend", ["aten", "reference"])
@pytest.mark.parametrize(("T", "B", "H"), [(1, 1, 1), (63, 3, 70), (7, 17, 100), (5, 1, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", STANDARD)
def test_errors_stay_within_the_policy(name, dtype, T, B, H, backend):
    I = 5
    layer = seqnets.Recurrent(name, I, H, bidirectional=True, dtype=dtype, backend=backend)
    theirs = {"lstm": nn.LSTM, "gru": nn.GRU}.get(name, nn.RNN)
    extra = {"nonlinearity": name[4:]} if theirs is nn.RNN else {}
    baseline = theirs(I, H, bidirectional=True, dtype=dtype, **extra)
    baseline.load_state_dict(layer.state_dict())
    oracle = copy.deepcopy(layer).double()
    oracle.backend = "reference"
    x = torch.randn(B, T, I).transpose(0, 1).to(dtype)  # not contiguous
    results = []
    for module, dt in ((layer, dtype), (baseline, dtype), (oracle, torch.float64)):
        leaf = x.to(dt).requires_grad_()
        y, final = module(leaf)
        outs = [y, *(final if isinstance(final, tuple) else (final,))]
        torch.manual_seed(5)
        cotangents = [torch.randn(o.shape).to(dtype).to(dt) for o in outs]
        results.append(outs + list(torch.autograd.grad(outs, [leaf, *module.parameters()], cotangents)))
    names = ["y", *layer.cell.states, "dx", *(f"d{n}" for n, _ in layer.named_parameters())]
    for what, actual, base, truth in zip(names, *results, strict=True):
        assert_within_policy(actual.detach(), base.detach(), truth.detach(), what)


@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16", "autocast"])
def test_gradients_of_what_steps_share_are_exact_over_many_steps(autocast):
    """Added up step by step in bfloat16, they came out wrong by several times what PyTorch's are."""
    stored = torch.float32 if autocast else torch.bfloat16
    layer = seqnets.Recurrent(zoo.ALL["peephole_lstm"], 5, 20, dtype=stored, backend="reference")
    oracle = copy.deepcopy(layer).double()
    x, shared = torch.randn(500, 3, 5), ["weight_hh_l0", "bias_hh_l0", "p_i_l0"]
    gradients = []
    for module, dtype in ((layer, stored), (oracle, torch.float64)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast and module is layer):
            y = module(x.to(dtype))[0]
        gradients.append(torch.autograd.grad(y.double().sum(), [getattr(module, name) for name in shared]))
    for name, actual, truth in zip(shared, *gradients, strict=True):
        assert_within_policy(actual.bfloat16(), truth.bfloat16(), truth, name)


@pytest.mark.parametrize(("name", "backend"), backends_of)
def test_saturated_gates_stay_finite(name, backend):
    layer = seqnets.Recurrent(zoo.ALL[name], 3, 4, masks=zoo.MASKS.get(name), backend=backend)
    x = torch.tensor([100.0, -100.0, 1e4]).expand(6, 2, 3).clone().requires_grad_()
    y, final = layer(x)
    sum(t.sum() for t in (y, *final)).backward()
    assert torch.isfinite(y).all() or name == "rnn_relu"
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", zoo.ALL)
@pytest.mark.parametrize(("T", "B"), [(0, 2), (3, 0)])
def test_empty_input_is_served(name, T, B):
    layer = zoo.layer(name, 3, 4, num_layers=2, bidirectional=True, return_all_states=True)
    y, final, every = layer(torch.randn(T, B, 3))
    assert y.shape == (T, B, 8)
    assert final[0].shape == (4, B, 4)
    assert every[-1].shape == (T, B, 8)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (torch.tensor([1, 2]), ValueError, r"shape \(3,\)"),
        (torch.tensor([[1, 2, 3]]), ValueError, r"shape \(3,\)"),
        (torch.tensor([1, -1, 2]), ValueError, "got -1"),
        (torch.tensor([1, 9, 2]), ValueError, r"0\.\.5.*got 9"),
        (torch.tensor([1.0, 2.0, 3.0]), TypeError, "integers"),
        ([1, 2, 3], TypeError, "integers"),
    ],
)
def test_wrong_lengths_are_refused(lengths, error, message):
    with pytest.raises(error, match=message):
        seqnets.GRU(3, 4)(torch.randn(5, 3, 3), lengths=lengths)


@pytest.mark.parametrize("backend", ["auto", "reference", "aten", "cpp"])
@pytest.mark.parametrize(
    ("name", "replaced", "message"),
    [
        (
            "weight_ih_l1_reverse", torch.zeros(16, 7),
            r"weight_ih_l1_reverse must have the shape \(16, 8\), and has \(16, 7\)",
        ),
        ("weight_hh_l0", torch.zeros(16, 5), r"weight_hh_l0 must have the shape \(16, 4\), and has \(16, 5\)"),
        ("bias_hh_l0", torch.zeros(15), r"must have the shape \(16,\)"),
        (
            "bias_hh_l0", torch.zeros(16, dtype=torch.float64),
            "bias_hh_l0 has dtype torch.float64, and the other weights",
        ),
        (
            "weight_hh_l0", torch.zeros(16, 4, device="meta"),
            "weight_hh_l0 is on meta, and the other weights are on cpu",
        ),
        ("weight_hh_l0", torch.ones(16, 4).to_sparse(), r"weight_hh_l0 must be dense, and is in the layout .*to_dense"),
    ],
)  # fmt: skip
def test_a_weight_that_was_replaced_by_one_that_does_not_fit_is_refused(name, replaced, message, backend):
    """Kernels would read beyond it, and torch.nn does."""
    layer = seqnets.LSTM(3, 4, num_layers=2, bidirectional=True, backend=backend)
    setattr(layer, name, nn.Parameter(replaced))
    with pytest.raises(RuntimeError, match=message):
        layer(torch.randn(5, 2, 3))


def test_other_parameters_that_do_not_fit_are_refused():
    layer = zoo.layer("peephole_lstm", 3, 4, learn_state=True)
    name = next(n for n, _ in layer.named_parameters() if n.startswith(tuple(layer.cell.params)))
    kept = getattr(layer, name)
    setattr(layer, name, nn.Parameter(torch.zeros(3)))
    with pytest.raises(RuntimeError, match=rf"{name} must have the shape \(4,\), and has \(3,\)"):
        layer(torch.randn(5, 2, 3))
    setattr(layer, name, kept)
    layer.initial_h = nn.Parameter(torch.zeros(1, 5))
    with pytest.raises(RuntimeError, match=r"initial_h must have the shape \(1, 4\), and has \(1, 5\)"):
        layer(torch.randn(5, 2, 3))
    cell = seqnets.GRUCell(3, 4)
    with pytest.raises(RuntimeError, match="hidden is on meta but the input is on cpu"):
        cell(torch.randn(2, 3), torch.zeros(2, 4, device="meta"))
    with pytest.raises(RuntimeError, match="input is on meta but the weights are on cpu"):
        cell(torch.randn(2, 3, device="meta"))
    cell.weight_hh = nn.Parameter(torch.zeros(12, 3))
    with pytest.raises(RuntimeError, match=r"weight_hh must have the shape \(12, 4\), and has \(12, 3\)"):
        cell(torch.randn(2, 3))


@pytest.mark.parametrize("backend", ["auto", "reference", "aten", "cpp"])
def test_input_that_is_not_dense_is_refused(backend):
    layer, x = seqnets.GRU(3, 4, backend=backend), torch.randn(5, 2, 3)
    with pytest.raises(TypeError, match="is in the layout torch.sparse_coo; pad sequences and pass lengths="):
        layer(x.to_sparse())
    with pytest.raises(TypeError, match="and is nested; pad sequences"):
        layer(torch.nested.nested_tensor([torch.randn(5, 3), torch.randn(2, 3)]))
    with pytest.raises(TypeError, match="state 'h' must be a dense tensor"):
        layer(x, torch.zeros(1, 2, 4).to_sparse())
    cell = seqnets.GRUCell(3, 4, backend=backend)
    with pytest.raises(TypeError, match="input must be a dense tensor"):
        cell(x[0].to_sparse())
    with pytest.raises(TypeError, match="hidden must be a dense tensor"):
        cell(x[0], torch.zeros(2, 4).to_sparse())


def test_wrong_calls_are_refused():
    layer, x = seqnets.LSTM(3, 4), torch.randn(5, 2, 3)
    with pytest.raises(ValueError, match="either it or lengths="):
        layer(pack_padded_sequence(x, torch.tensor([5, 2])), lengths=torch.tensor([5, 2]))
    with pytest.raises(ValueError, match="unbatched"):
        layer(x[:, 0], lengths=torch.tensor([5]))
    with pytest.raises(RuntimeError, match="states h, c"):
        layer(x, (torch.zeros(1, 2, 4),))
    with pytest.raises(RuntimeError, match=r"state 'c' of size \(1, 2, 4\), got \(1, 2, 5\)"):
        layer(x, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 5)))
    with pytest.raises(RuntimeError, match="dtype"):
        layer(x, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4, dtype=torch.float64)))
    with pytest.raises(TypeError, match="PackedSequence"):
        layer([1, 2])
    with pytest.raises(TypeError, match="a tuple of h, c, not int"):
        layer(x, 5)
    with pytest.raises(ValueError, match="reads its first state"):
        seqnets.Recurrent("gru", 3, 4, proj_size=2)
    with pytest.raises(BackendError, match="unknown backend 'cudnn'; choose from auto, "):
        seqnets.LSTM(3, 4, backend="cudnn")
