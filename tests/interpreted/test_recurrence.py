"""Layers by the generated kernels, against the reference: outputs and every gradient.
The check is in `tests.recurrences`.

bfloat16 is among the dtypes although the interpreter's bfloat16 `tl.dot` multiplies bit patterns: there `product`, in
schedules/device.py, converts its operands to float32, in which a product of two bfloat16 numbers is exact, as it is in
a tensor core. All else, that is where values are rounded and stored, is what a GPU runs.
"""

import pytest
import torch

import seqnets
from seqnets.kernels.triton import launch
from seqnets.kernels.triton.operator import recurrence
from seqnets.kernels.triton.planning.select import use_schedule
from tests import recurrences
from tests.recurrences import GRU, LSTM, SCHEDULES, Case, by_kernels

# saturated gates: NumPy, which interprets, says so where a GPU is silent
pytestmark = [
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
    pytest.mark.usefixtures("unchecked"),
]


def cases(given):
    return pytest.mark.parametrize("case", given, ids=str)


@pytest.mark.sampled(2)
@cases(recurrences.EVERY_CELL)
def test_every_cell_and_each_output(case):
    recurrences.check(case)


@pytest.mark.sampled(2)
@cases(recurrences.IN_HALF)
def test_every_cell_in_half_precision(case):
    recurrences.check(case)


@pytest.mark.sampled(2)
@cases(recurrences.IN_DOUBLE)
def test_double_precision(case):
    recurrences.check(case)


@pytest.mark.sampled(2)
@cases(recurrences.ODD_SHAPES)
def test_odd_shapes(case):
    recurrences.check(case)


@pytest.mark.sampled(2)
@cases(recurrences.SATURATED)
def test_saturated_gates(case):
    recurrences.check(case)


@pytest.mark.sampled(2)
@cases(recurrences.RAGGED)
def test_ragged_batches(case):
    recurrences.check(case)


@pytest.mark.sampled(3)
@cases(recurrences.OPTIONS)
def test_options(case):
    recurrences.check(case)


@pytest.mark.sampled(2)
@cases(recurrences.EMPTY)
def test_empty_input(case):
    recurrences.check(case)


@cases(recurrences.REPEATED)
def test_the_same_input_gives_the_same_bits(case):
    recurrences.check_bits(case)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_heads": 2, "bias": False}], ids=str)
@pytest.mark.parametrize("lengths", [(), (4, 2, 0)], ids=["full", "ragged"])
def test_where_arithmetic_is_exact_the_bits_are_those_of_the_reference(lengths, options, schedule):
    """Whether recurrent projections are kept or computed again."""
    recurrences.check_exact(schedule, lengths, options)


def test_what_kernels_leave_unwritten_is_seen(monkeypatch):
    monkeypatch.setattr(launch, "_launch", lambda x, launches: None)
    for what, tensor in by_kernels(Case(GRU)).items():
        assert tensor.isnan().all(), what


@pytest.mark.parametrize("schedule", SCHEDULES)
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


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_length_beyond_the_last_step_counts_as_that_step(schedule):
    """On a GPU lengths are not checked, as that would wait for it; they must not lead beyond the memory."""
    torch.manual_seed(0)
    given = [
        torch.randn(3, 2, 2, 1, 20),
        [torch.randn(2, 2, 1, 5) for _ in range(2)],
        torch.randn(2, 1, 5, 20),
        None,
        [],
        [],
    ]
    leaves = [given[0], *given[1], given[2]]
    found = []
    for lengths in ([9, 2], [3, 2]):
        for leaf in leaves:
            leaf.requires_grad_()
        with use_schedule(schedule):
            outputs = recurrence(*given, torch.tensor(lengths), LSTM.key, keep_states=True, keep_r=True)
            y, _, h, c, _ = outputs
            found.append([y, h, c, *torch.autograd.grad((y.sum() + h.sum() + c.sum()), leaves)])
    assert all(map(torch.equal, *found))
