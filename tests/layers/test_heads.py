"""Block-diagonal recurrence: a layer with heads is the dense layer whose recurrent weight is zero between heads."""

import copy
import itertools

import pytest
import torch

import seqnets
from seqnets.recurrence import project_state
from tests.cells import zoo

I, H, N = 3, 6, 3
K = H // N


def in_blocks(weight_hh, gates):
    """The dense ``(G·H, H)`` of a ``(G·H, K)``, entry by entry as documented."""
    dense = weight_hh.new_zeros(gates * H, H)
    for gate, n, unit in itertools.product(range(gates), range(N), range(K)):
        row = gate * H + n * K + unit
        dense[row, n * K : (n + 1) * K] = weight_hh[row]
    return dense


def layer_and_dense(name, **options):
    """A layer with heads, and a dense one of the same function: it holds what `in_blocks` makes of the weights."""
    layer = zoo.layer(name, I, H, num_heads=N, dtype=torch.float64, **options)
    dense = zoo.layer(name, I, H, dtype=torch.float64, **options)
    weights = {
        key: in_blocks(value, layer.cell.gates) if "weight_hh" in key else value
        for key, value in layer.state_dict().items()
    }
    dense.load_state_dict(weights)
    return layer, dense


def run(layer, x, state, lengths):
    torch.manual_seed(1)  # the same masks in both
    leaves = [x.clone().requires_grad_(), *(s.clone().requires_grad_() for s in state)]
    y, final, every = layer(leaves[0], leaves[1:], lengths, return_all_states=True)
    outs = [y, *final, *every]
    inputs = [*leaves, *layer.parameters()]
    # a cell may not read a state that it returns
    grads = torch.autograd.grad(outs, inputs, [o.detach().cos() for o in outs], materialize_grads=True)
    named = dict(zip(["x", *layer.cell.states, *(n for n, _ in layer.named_parameters())], grads, strict=True))
    return outs, named


@pytest.mark.sampled(3)
@pytest.mark.parametrize("lengths", [None, [4, 0, 2]], ids=["full", "ragged"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}], ids=str)
@pytest.mark.parametrize("name", zoo.ALL)
def test_heads_are_a_dense_layer_that_is_zero_between_them(name, options, lengths):
    layer, dense = layer_and_dense(name, **options)
    x = torch.randn(4, 3, I, dtype=torch.float64)
    rows = layer.num_layers * layer.num_directions
    state = [torch.randn(rows, 3, H, dtype=torch.float64) for _ in layer.cell.states]
    lengths = None if lengths is None else torch.tensor(lengths)
    outs, grads = run(layer, x, state, lengths)
    expected_outs, expected_grads = run(dense, x, state, lengths)
    torch.testing.assert_close(outs, expected_outs)
    inside = in_blocks(torch.ones(layer.cell.gates * H, K, dtype=torch.float64), layer.cell.gates)
    for key, grad in grads.items():
        if "weight_hh" in key:  # between heads the dense weight has a gradient, which heads do not have
            torch.testing.assert_close(in_blocks(grad, layer.cell.gates), expected_grads[key] * inside)
        else:
            torch.testing.assert_close(grad, expected_grads[key])


def test_the_projection_has_second_derivatives_and_is_linear_for_one_head():
    h = torch.randn(5, H, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4 * H, K, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4 * H, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(project_state, (h, weight, bias))
    assert torch.autograd.gradgradcheck(project_state, (h, weight, bias))
    dense = in_blocks(weight, 4)
    torch.testing.assert_close(project_state(h, weight, bias), project_state(h, dense, bias))
    assert torch.equal(project_state(h, dense, bias), torch.nn.functional.linear(h, dense, bias))
    torch.testing.assert_close(project_state(h, weight), h @ dense.T)


def test_streaming_copies_transforms_and_state_dicts():
    layer = seqnets.LSTM(I, H, num_layers=2, num_heads=N, dtype=torch.float64)
    x, state = torch.randn(4, 2, I, dtype=torch.float64), None
    y, final = layer(x)
    for t in range(4):
        y_t, state = layer.step(x[t], state)
        torch.testing.assert_close(y_t, y[t])
    torch.testing.assert_close(tuple(state), tuple(final))
    other = seqnets.LSTM(I, H, num_layers=2, num_heads=N, dtype=torch.float64)
    other.load_state_dict(layer.state_dict())
    for same in (other, copy.deepcopy(layer)):
        assert torch.equal(same(x)[0], y)
    each = torch.func.vmap(lambda one: layer(one)[0])(torch.stack([x, -x]))
    torch.testing.assert_close(each[0], y)
    with pytest.raises(RuntimeError, match="size mismatch for weight_hh_l0"):
        seqnets.LSTM(I, H, num_layers=2, dtype=torch.float64).load_state_dict(layer.state_dict())


@pytest.mark.parametrize("make", [seqnets.LSTM, seqnets.GRU, seqnets.RNN])
def test_the_drop_ins_take_heads_and_leave_torchs_own_operations(make):
    layer, x = make(I, H, num_heads=2), torch.randn(4, 2, I)
    assert layer.weight_hh_l0.shape[1] == H // 2
    assert "num_heads=2" in repr(layer)
    explained = seqnets.explain(layer, x)
    assert explained.backend == "cpp"
    assert "no block-diagonal recurrence, and this one has 2 heads" in explained.reasons["aten"]
    assert seqnets.explain(make(I, H, num_heads=1), x).backend == "aten"
    assert "num_heads" not in repr(make(I, H))


def test_compiles_to_one_graph_and_serves_empty_input_and_autocast():
    layer, x = seqnets.GRU(I, H, num_heads=N), torch.randn(3, 2, I)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x)[0], layer(x)[0])
    compiled(x)[0].sum().backward()
    assert layer(x[:, :0])[0].shape == (3, 0, H)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x)[0].dtype == torch.bfloat16


def test_initialisation_is_per_head():
    layer = seqnets.LSTM(I, H, num_heads=N, init="keras", bidirectional=True)
    for weight in (layer.weight_hh_l0, layer.weight_hh_l0_reverse):
        for n in range(N):
            head = torch.cat([weight[gate * H + n * K : gate * H + (n + 1) * K] for gate in range(4)])
            torch.testing.assert_close(head.T @ head, torch.eye(K))
    projected = seqnets.LSTM(I, H, proj_size=2, init="keras").weight_hh_l0
    torch.testing.assert_close(projected.T @ projected, torch.eye(2))
    assert seqnets.GRU(I, H, num_heads=N).weight_hh_l0.abs().max() <= H**-0.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_heads": 4}, ValueError, "must divide hidden_size 6, got 4; these do: 1, 2, 3, 6$"),
        ({"num_heads": 12}, ValueError, "must divide hidden_size 6, got 12"),
        ({"num_heads": 0}, ValueError, "num_heads must be at least 1, got 0"),
        ({"num_heads": 2.0}, TypeError, "num_heads must be an integer"),
        ({"num_heads": True}, TypeError, "num_heads must be an integer"),
        ({"num_heads": 2, "proj_size": 2}, ValueError, "proj_size=2 does not go with num_heads=2"),
    ],
    ids=str,
)
def test_wrong_heads_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        seqnets.LSTM(I, H, **options)
