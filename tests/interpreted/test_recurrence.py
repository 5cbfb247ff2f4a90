"""Layers by the generated kernels, against the reference: outputs and every gradient. The check is in `tests.recurrences`.

bfloat16 is among the dtypes although the interpreter's bfloat16 `tl.dot` multiplies bit patterns: there `product`, in
schedules/device.py, converts its operands to float32, in which a product of two bfloat16 numbers is exact, as it is in a
tensor core. All else, that is where values are rounded and stored, is what a GPU runs.
"""

import pytest
import torch

import seqnets
from seqnets.errors import BackendError
from seqnets.kernels import launch
from seqnets.kernels.planning.select import use_schedule
from tests import recurrences
from tests.cells import zoo
from tests.recurrences import CELLS, Case, by_kernels, masked, normed, schedules, traced

LSTM, GRU, RNN, RELU, PEEPHOLE = (zoo.ALL[name] for name in ("lstm", "gru", "rnn_tanh", "rnn_relu", "peephole_lstm"))

# saturated gates: NumPy, which interprets, says so where a GPU is silent
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")

HALF, BFLOAT, DOUBLE = torch.float16, torch.bfloat16, torch.float64


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch):
    monkeypatch.setenv("SEQNETS_CHECK", "0")  # the check of first use runs what these tests run


def cases(*given):
    return pytest.mark.parametrize("case", given, ids=str)


def by_each_schedule(*given):
    return cases(*(case.but(schedule=schedule) for case in given for schedule in schedules(case.cell)))


@by_each_schedule(*(Case(cell, alone=True) for cell in CELLS))
def test_every_cell(case):
    recurrences.check(case)


@by_each_schedule(
    *(
        Case(cell, dtype=dtype, lengths=(4, 0, 1), options={"bidirectional": True})
        for dtype in (HALF, BFLOAT)
        for cell in CELLS
    )
)
def test_every_cell_in_half_precision(case):
    recurrences.check(case)


@by_each_schedule(
    Case(RNN, T=63, B=1, H=3),
    Case(GRU, T=1, B=17, H=1),
    Case(GRU, T=3, B=17, H=16),
    Case(GRU, T=2, H=70),
    Case(GRU, T=2, B=1, H=100, dtype=HALF),
    Case(LSTM, T=2, B=17, H=70, dtype=BFLOAT, lengths=(2, 1, 0) * 5 + (2, 2)),
    Case(LSTM, T=1, B=1, H=1),
    Case(PEEPHOLE, T=2, H=100, dtype=HALF, options={"bidirectional": True}),
    Case(traced, T=2, H=100),
    Case(masked, T=2, B=17, H=70),
    Case(normed, T=2, B=17, H=100),
    Case(normed, H=1),
)
def test_odd_shapes(case):
    recurrences.check(case)


@by_each_schedule(
    *(Case(cell, saturated=True) for cell in CELLS if cell is not RELU), Case(LSTM, saturated=True, dtype=HALF)
)
def test_saturated_gates(case):
    recurrences.check(case)


@by_each_schedule(*(Case(cell, dtype=DOUBLE, H=3, T=3) for cell in (LSTM, GRU, traced, normed, masked)))
def test_double_precision(case):
    recurrences.check(case)


@by_each_schedule(
    *(Case(cell, T=5, B=4, lengths=(3, 0, 5, 1)) for cell in (RNN, LSTM, traced, masked, normed)),
    Case(GRU, B=4, lengths=(3, 0, 4, 1), options={"bidirectional": True, "num_layers": 2}),
    Case(GRU, lengths=(0, 0, 0), options={"bidirectional": True}),
    Case(masked, lengths=(4, 2, 0), options={"bidirectional": True, "return_all_states": True}, alone=True),
    Case(LSTM, lengths=(4, 2, 0), options={"bidirectional": True, "recompute": True, "num_heads": 7}),
)
def test_ragged_batches(case):
    """What x holds beyond the lengths is nan."""
    recurrences.check(case)


OPTIONS = (
    {"bidirectional": True},
    {"num_layers": 2},
    {"batch_first": True},
    {"bias": False},
    {"recurrent_bias": False, "bidirectional": True},
    {"learn_state": True},
    {"recompute": True, "bidirectional": True},
    {"return_all_states": True, "bidirectional": True},
    {"num_heads": 2},
    {"num_heads": 3, "recompute": True, "bidirectional": True, "bias": False},
)


@by_each_schedule(*(Case(cell, H=6, options=options) for cell in (LSTM, GRU, masked) for options in OPTIONS))
def test_options(case):
    recurrences.check(case)


@by_each_schedule(*(Case(normed, H=6, options=options) for options in OPTIONS if "num_heads" not in options))
def test_options_of_a_cell_with_a_row_reduction(case):
    recurrences.check(case)


@by_each_schedule(Case(GRU, dtype=DOUBLE, options={"num_layers": 3, "dropout": 0.5}))
def test_dropout_between_layers(case):
    """In float64: there alone the reference draws what the kernels' layers draw."""
    recurrences.check(case)
    assert not torch.equal(by_kernels(case)["y"], by_kernels(case.but(options={"num_layers": 3}))["y"])


@by_each_schedule(
    Case(GRU, B=17, lengths=tuple(range(5)) * 3 + (4, 4), options={"bidirectional": True}), Case(traced, B=17)
)
def test_the_same_input_gives_the_same_bits(case):
    first, second = by_kernels(case), by_kernels(case)
    for what, tensor in first.items():
        assert torch.equal(tensor, second[what]), what


@pytest.mark.parametrize("schedule", ["resident", "tiled"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_heads": 2, "bias": False}], ids=str)
@pytest.mark.parametrize("lengths", [None, (4, 2, 0)], ids=["full", "ragged"])
def test_in_whole_numbers_the_bits_are_those_of_the_reference(lengths, options, schedule):
    """Sums of products are exact there in any order: the same bits, whether projections are kept or computed again."""

    def whole(tensor):
        return torch.randint(-1, 2, tensor.shape).to(tensor)

    layer = seqnets.Recurrent(RELU, 3, 6, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(whole(parameter))
    x, lengths = whole(torch.empty(4, 3, 3)).requires_grad_(), None if lengths is None else torch.tensor(lengths)
    found = []
    for layer.backend, layer.recompute in (("reference", False), ("triton", False), ("triton", True)):
        torch.manual_seed(0)
        with use_schedule(schedule), recurrences.poisoned_allocations():
            outputs = [layer(x, lengths=lengths)[0], *layer(x, lengths=lengths)[1]]
            found.append(outputs + list(torch.autograd.grad(outputs, [x, *layer.parameters()], map(whole, outputs))))
    assert found[0][0].any() and found[0][-1].any()
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_what_kernels_leave_unwritten_is_seen(monkeypatch):
    monkeypatch.setattr(launch, "_launch", lambda x, launches: None)
    for what, tensor in by_kernels(Case(GRU)).items():
        assert tensor.isnan().all(), what


@by_each_schedule(Case(LSTM, T=0), Case(masked, B=0, options={"return_all_states": True}), Case(LSTM, T=0, B=0))
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2, "recompute": True}], ids=str)
def test_empty_input(case, options):
    recurrences.check(case.but(options=case.options | options))


@pytest.mark.parametrize("schedule", ["resident", "tiled"])
def test_strided_and_expanded_tensors(schedule):
    layer = seqnets.Recurrent(LSTM, 3, 6, backend="triton")
    x, state = torch.randn(4, 2, 6, requires_grad=True), torch.randn(12, requires_grad=True)
    results = []
    for copy in (lambda tensor: tensor, torch.clone):
        given = (x[::2, :, 1::2], (state[::2].expand(1, 2, 6), state[1::2].expand(1, 2, 6)))
        x_given, (h, c) = copy(given[0]), map(copy, given[1])
        with use_schedule(schedule):
            y, last = layer(x_given, (h, c))
            loss = y.sum() + last.c[0, :, :1].expand(-1, 4).sum()  # cotangents without strides of their own
            results.append([y, *last, *torch.autograd.grad(loss, [x, state, *layer.parameters()])])
    assert all(map(torch.equal, *results))


def test_weights_that_do_not_lie_in_one_piece():
    layer, plain = (seqnets.Recurrent(GRU, 3, 6, backend="triton") for _ in range(2))
    plain.load_state_dict(layer.state_dict())
    for name, parameter in list(layer.named_parameters()):
        wide = torch.stack([parameter.detach()] * 2, dim=-1)
        setattr(layer, name, torch.nn.Parameter(wide[..., 0]))
        assert not getattr(layer, name).is_contiguous()
    x, found = torch.randn(4, 2, 3), []
    for module in (layer, plain):
        y = module(x)[0]
        found.append([y, *torch.autograd.grad(y.sum(), list(module.parameters()))])
    assert all(map(torch.equal, *found))


def test_packed_and_unbatched_input_and_steps():
    layer = seqnets.Recurrent(LSTM, 3, 6, backend="triton")
    x, lengths = torch.randn(4, 3, 3), torch.tensor([2, 4, 1])
    y, last = layer(x, lengths=lengths)
    packed, packed_last = layer(torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
    assert torch.equal(torch.nn.utils.rnn.pad_packed_sequence(packed)[0], y)
    assert torch.equal(packed_last.c, last.c)
    assert torch.equal(layer(x[:, 1])[0], y[:, 1])
    state = None
    for t in range(4):
        y_t, state = layer.step(x[t, 1:2], state)
        torch.testing.assert_close(y_t, y[t, 1:2])


def test_without_gradients_nothing_is_kept():
    layer, x = seqnets.Recurrent(LSTM, 3, 6, backend="triton", bidirectional=True), torch.randn(4, 2, 3)
    expected, state = layer(x)
    with torch.no_grad():
        y, last = layer(x)
    assert torch.equal(y, expected)
    assert torch.equal(last.c, state.c)
    with torch.inference_mode():
        assert torch.equal(layer(x)[0], expected)


@pytest.mark.parametrize("wanted", ["x", "h", "c", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
def test_a_gradient_alone(wanted):
    layer = seqnets.Recurrent(LSTM, 3, 6, backend="triton")
    given = {"x": torch.randn(4, 2, 3), "h": torch.randn(1, 2, 6), "c": torch.randn(1, 2, 6)}
    leaves = given | dict(layer.named_parameters())
    found = []
    for chosen in ([wanted], list(leaves)):
        for name, leaf in leaves.items():
            leaf.requires_grad_(name in chosen)
        y, _ = layer(given["x"], (given["h"], given["c"]))
        found.append(torch.autograd.grad(y.sum(), leaves[wanted])[0])
    assert torch.equal(*found)


def test_a_row_reduction_needs_one_program_for_a_row():
    with pytest.raises(BackendError, match="cannot serve this call: .*row"), use_schedule("tiled"):
        seqnets.Recurrent(normed, 3, 6, backend="triton")(torch.randn(4, 2, 3))


def test_a_recurrence_trains():
    """The cell of a paper, as its user would train it: the same losses as on the reference."""
    x, target = torch.randn(6, 4, 3), torch.randn(4, 5)
    losses = {}
    for backend in ("reference", "triton"):
        torch.manual_seed(0)
        layer = seqnets.Recurrent(recurrences.nbrc, 3, 5, backend=backend)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
        for _ in range(5):
            loss = (layer(x)[1].h[0] - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.setdefault(backend, []).append(loss.item())
    assert losses["triton"][-1] < 0.95 * losses["triton"][0]
    assert losses["triton"] == pytest.approx(losses["reference"], rel=1e-5)
