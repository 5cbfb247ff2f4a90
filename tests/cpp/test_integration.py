"""The C++ kernels within PyTorch: operators, compilation, export, double backward, autocast, transforms,
threads of Python.
"""

import copy
import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import seqnets
from seqnets.errors import BackendError
from seqnets.kernels.cpp.operator import layer as operator
from seqnets.kernels.cpp.operator import layer_backward
from seqnets.kernels.cpp.pool import SMALLEST, Pool
from tests.recurrences import (
    ENTANGLED,
    GRU,
    LSTM,
    Case,
    build,
    check_batched_gradients,
    check_entangled_gradients,
    check_gradients_of_states,
    inputs,
    masked,
    normed,
    traced,
)


def gradients(module, *arguments):
    y = module(*arguments)[0]
    return [y, *torch.autograd.grad(y.square().sum(), list(module.parameters()))]


# ---- operators


def operands(cell, D=1, bias=True, lengths=None, per_step=()):
    T, B, I, H, G = 3, 2, 3, 5, cell.gates

    def normal(*shape):
        return torch.randn(shape, requires_grad=True)

    biases = [normal(G * H) for _ in range(D if bias else 0)]
    return (
        normal(T, B, I), [normal(D, B, H) for _ in cell.states], [normal(G * H, I) for _ in range(D)],
        [normal(G * H, H) for _ in range(D)], biases, [b.detach().clone().requires_grad_() for b in biases],
        [normal(H) for _ in range(D) for _ in cell.params],
        [torch.rand((T, B, H) if per else (B, H)).round() for _ in range(D) for per in per_step],
        None if lengths is None else torch.tensor(lengths),
    )  # fmt: skip


OPERANDS = {
    "ragged, two-way, no bias": lambda: (GRU, operands(GRU, D=2, bias=False, lengths=[3, 1])),
    "with parameters": lambda: (traced, operands(traced)),
    "masked": lambda: (masked, operands(masked, per_step=(False, True))),
    "normed": lambda: (normed, operands(normed, D=2)),
}


@pytest.mark.parametrize("make", OPERANDS.values(), ids=OPERANDS)
def test_the_operators_are_as_pytorch_wants_them(make):
    cell, given = make()
    torch.library.opcheck(operator, (*given, cell.key, True, True))
    with torch.no_grad():
        y, *found = operator(*given, cell.key, True, True)
        S = len(cell.states)
        states, (saved, columns) = [y, *found[S:-2]], found[-2:]
        cotangents = [None, *map(torch.randn_like, states[1:])], [torch.randn_like(found[0]), *[None] * (S - 1)]
        for want_input in (True, False):
            torch.library.opcheck(layer_backward, (*given, states, saved, columns, *cotangents, cell.key, want_input))


def test_a_forward_that_kept_nothing_has_no_backward():
    y, *_ = operator(*operands(GRU), GRU.key, False, False)
    with pytest.raises(RuntimeError, match="kept nothing"):
        y.sum().backward()


# ---- torch.compile and torch.export


@pytest.mark.parametrize(
    ("cell", "compiler"),
    [(GRU, "eager"), (LSTM, "inductor"), (traced, "aot_eager"), (masked, "inductor"), (normed, "eager")],
    ids=lambda value: getattr(value, "name", value),
)
def test_compiles_to_one_graph(cell, compiler):
    layer = build(Case(cell), backend="cpp", bidirectional=True).eval()
    (x, state, _), lengths = inputs(Case(cell, options={"bidirectional": True})), torch.tensor([4, 0, 2])
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=compiler)
    for arguments in ((x,), (x, state, lengths)):
        torch.testing.assert_close(gradients(compiled, *arguments), gradients(layer, *arguments))


def test_one_compilation_serves_every_length_and_batch():
    layer = seqnets.LSTM(3, 4, backend="cpp")
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    counter = torch._dynamo.utils.counters["stats"]
    counter.clear()
    for T, B in ((6, 2), (3, 5), (4, 7)):
        arguments = torch.randn(T, B, 3), None, torch.randint(0, T + 1, (B,))
        torch.testing.assert_close(gradients(compiled, *arguments), gradients(layer, *arguments))
    assert counter["unique_graphs"] == 1


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_program_runs(strict, tmp_path):
    layer, x = seqnets.GRU(3, 4, bidirectional=True, backend="cpp").eval(), torch.randn(4, 3, 3)
    program = torch.export.export(layer, (x, None, torch.tensor([4, 0, 2])), strict=strict)
    assert any("seqnets.layer" in str(node.target) for node in program.graph.nodes)
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    arguments = torch.randn(4, 3, 3), None, torch.tensor([1, 4, 0])
    assert torch.equal(loaded(*arguments)[0], layer(*arguments)[0])


# ---- derivatives, dtypes and transforms


@pytest.mark.parametrize("cell", [LSTM, traced, masked, normed], ids=lambda cell: cell.name)
def test_second_derivatives_are_those_of_the_reference(cell):
    case, found = Case(cell, dtype=torch.float64, lengths=(4, 0, 2), options={"bidirectional": True}), []
    for backend in ("cpp", "reference"):
        layer = build(case, backend=backend).eval()
        x, state, lengths = inputs(case)
        leaves = [x, *state, *layer.parameters()]
        y, final = layer(x, state, lengths)
        first = torch.autograd.grad(y.sin().sum() + final[-1].sum(), leaves, create_graph=True, materialize_grads=True)
        found.append(torch.autograd.grad(sum(d.square().sum() for d in first), leaves, materialize_grads=True))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("cell", [LSTM, traced, masked, normed], ids=lambda cell: cell.name)
def test_batched_gradients_are_those_of_the_reference(cell):
    check_batched_gradients(cell, "cpp")


@pytest.mark.parametrize("create_graph", [True, False], ids=["to be differentiated again", "batched"])
@pytest.mark.parametrize("form", ENTANGLED)
@pytest.mark.parametrize("cell", [LSTM, traced], ids=lambda cell: cell.name)
def test_each_path_to_an_input_counts_once(cell, form, create_graph):
    check_entangled_gradients(cell, form, create_graph, "cpp")


@pytest.mark.parametrize("T", [0, 3])
def test_empty_sequences_have_gradients_of_all_kinds(T):
    check_gradients_of_states(T, "cpp")


@pytest.mark.parametrize("lengths", [None, (4, 0, 2)], ids=["full", "ragged"])
@pytest.mark.parametrize("cell", [LSTM, traced, normed], ids=lambda cell: cell.name)
def test_all_states_without_gradients(cell, lengths):
    layer = build(Case(cell), backend="cpp", bidirectional=True).eval()
    x, state, _ = inputs(Case(cell, options={"bidirectional": True}))
    lengths = None if lengths is None else torch.tensor(lengths)
    expected = layer(x, state, lengths, return_all_states=True)[2]
    with torch.no_grad():
        found = layer(x, state, lengths, return_all_states=True)[2]
    assert all(map(torch.equal, found, expected))


@seqnets.cell(gates=1, states=("h",))
def pooled(x, r, state):
    return state.h * (x[0] + r[0]).mean(-1, keepdim=True)


def test_a_step_that_saves_one_number_per_row_alone():
    layer, x, found = seqnets.Recurrent(pooled, 3, 20, backend="cpp"), torch.randn(4, 5, 3), []
    state, lengths = torch.rand(1, 5, 20), torch.tensor([4, 0, 2, 1, 3])
    for backend in ("cpp", "reference"):
        layer.backend = backend
        y, _ = layer(x, state, lengths)
        found.append([y, *torch.autograd.grad(y.sum(), list(layer.parameters()))])
    torch.testing.assert_close(*found)


def test_negative_views_are_read_as_what_they_say():
    layer, x = seqnets.GRU(3, 20, backend="cpp"), torch.randn(4, 5, 3)
    y, expected = layer(torch._neg_view(x))[0], layer(-x)[0]
    assert torch.equal(y, expected)
    d_y = torch.randn_like(y)
    mine, theirs = (
        torch.autograd.grad(out, list(layer.parameters()), d)
        for out, d in ((y, torch._neg_view(d_y)), (expected, -d_y))
    )
    assert all(map(torch.equal, mine, theirs))


def test_gradients_that_nobody_wants_are_not_computed():
    layer, x = seqnets.LSTM(3, 4, backend="cpp"), torch.randn(4, 2, 3)
    wanted = torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters()))
    x.requires_grad_()
    with_input = torch.autograd.grad(layer(x)[0].sum(), [*layer.parameters(), x])
    assert all(map(torch.equal, wanted, with_input[:-1]))
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    assert torch.equal(torch.autograd.grad(layer(x)[0].sum(), x)[0], with_input[-1])


def test_autocast_takes_any_dtype_and_returns_its_own():
    layer, x = seqnets.LSTM(3, 4, bidirectional=True, backend="cpp"), torch.randn(4, 2, 3, requires_grad=True)
    for given in (x, x.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            y, (h, c) = layer(given)
        assert y.dtype == h.dtype == c.dtype == torch.bfloat16
        (y.sum() + c.sum()).backward()
    assert {tensor.grad.dtype for tensor in (x, *layer.parameters())} == {torch.float32}
    cast = copy.deepcopy(layer).to(torch.bfloat16)
    assert torch.equal(cast(x.bfloat16())[0], y)


def test_float16_is_refused_with_what_is_served():
    layer = seqnets.GRU(3, 4, dtype=torch.float16, backend="cpp")
    with pytest.raises(BackendError, match="its kernels compute in bfloat16, float32, float64, not in torch.float16"):
        layer(torch.randn(2, 2, 3, dtype=torch.float16))


def test_functional_transforms_go_to_the_reference():
    layer, x = seqnets.GRU(3, 4, backend="cpp"), torch.randn(2, 5, 2, 3)
    with pytest.raises(BackendError, match=r"torch.func transforms"):
        torch.func.vmap(lambda one: layer(one)[0])(x)


SLOPE = 2.0


@seqnets.cell(gates=1, states=("h",))
def annealed(x, r, state):
    return ((x[0] + r[0]) * SLOPE).tanh()


def test_a_number_that_the_step_reads_and_that_changed_is_refused(monkeypatch):
    layer, x = seqnets.Recurrent(annealed, 3, 4, backend="cpp"), torch.randn(4, 2, 3)
    torch.testing.assert_close(layer(x)[0], seqnets.use_backend("reference")(layer)(x)[0])
    monkeypatch.setitem(globals(), "SLOPE", 0.5)
    with pytest.raises(BackendError, match="its step reads SLOPE, which was 2.0 when"):
        layer(x)


def test_saved_tensors_may_be_kept_otherwise():
    layer, x = seqnets.LSTM(3, 20, backend="cpp"), torch.randn(4, 5, 3, requires_grad=True)
    expected = gradients(layer, x)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: t.t() if t.dim() == 2 else t, lambda t: t.t() if t.dim() == 2 else t
    ):
        found = gradients(layer, x)
    assert all(map(torch.equal, expected, found))


def test_threads_of_python_do_not_meet():
    layer, xs = seqnets.GRU(3, 20, backend="cpp"), [torch.randn(9, 5, 3) for _ in range(16)]
    expected = [gradients(layer, x) for x in xs]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda x: gradients(layer, x), xs))
    for one, other in zip(expected, found, strict=True):
        assert all(map(torch.equal, one, other))


# ---- memory


def test_memory_is_lent_while_a_tensor_lives_and_used_again():
    pool, shape = Pool(), (SMALLEST, 3)
    tensor = pool.empty(shape, torch.float32)
    address, part = tensor.data_ptr(), tensor[1:]
    del tensor
    gc.collect()
    other = pool.empty(shape, torch.float32)
    assert pool.idle == 0 and other.data_ptr() != address  # a view lives
    del part
    gc.collect()
    assert pool.idle >= 4 * SMALLEST * 3
    assert pool.empty((SMALLEST - 1, 3), torch.float32).data_ptr() == address
    gc.collect()
    pool.clear()
    assert pool.idle == 0


def test_no_more_is_kept_than_was_said():
    pool = Pool(most=SMALLEST)
    tensor = pool.empty((SMALLEST * 2,), torch.uint8)
    del tensor
    gc.collect()
    assert pool.idle == 0


def test_autocast_leaves_float64_alone():
    layer = seqnets.GRU(3, 4, dtype=torch.float64, backend="cpp")
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 2, 3, dtype=torch.float64))[0].dtype == torch.float64
        with pytest.raises(BackendError, match="in float64, which autocast leaves alone"):
            layer(torch.randn(2, 2, 3))


class Wrapper(torch.Tensor):
    """Holds another tensor, and has no storage of its own, as distributed tensors do."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, requires_grad=inner.requires_grad
        )

    def __init__(self, inner):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        args, kwargs = torch.utils._pytree.tree_map_only(cls, lambda w: w.inner, (args, kwargs or {}))
        return torch.utils._pytree.tree_map_only(torch.Tensor, cls, function(*args, **kwargs))


@pytest.mark.parametrize("which", ["weight", "state", "cotangent"])
def test_tensors_without_storage_are_no_addresses(which):
    layer, x, state = seqnets.Recurrent(traced, 3, 20, backend="cpp"), torch.randn(4, 2, 3), torch.randn(1, 2, 20)
    d_y = torch.randn(4, 2, 20)
    y = layer(x, (state, state))[0]
    expected = [y, *torch.autograd.grad(y, [layer.weight_ih_l0, layer.decay_l0], d_y)]
    if which == "weight":
        layer.weight_hh_l0 = torch.nn.Parameter(Wrapper(layer.weight_hh_l0.detach()))
    state = Wrapper(state) if which == "state" else state
    y = layer(x, (state, state))[0]
    found = [
        y,
        *torch.autograd.grad(y, [layer.weight_ih_l0, layer.decay_l0], Wrapper(d_y) if which == "cotangent" else d_y),
    ]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.inner if isinstance(one, Wrapper) else one, other)


def test_a_compiled_vmap_over_weights_is_served():
    layer, x = seqnets.Recurrent(traced, 3, 4), torch.randn(5, 2, 3)
    weights = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in layer.named_parameters()}

    def run(weights):
        return torch.func.functional_call(layer, weights, (x,))[0]

    expected = torch.func.vmap(run)(weights)
    torch.testing.assert_close(torch.compile(torch.func.vmap(run), backend="eager")(weights), expected)


GAIN = 2.0


@seqnets.cell(gates=1, states=("h",))
def scaled(x, r, state):
    return (GAIN * (x[0] + r[0])).tanh()


def test_a_number_that_changes_after_the_forward_pass(monkeypatch):
    """Kernels give gradients of the number as it was; the step would give those of another one, and is refused."""
    layer, x = seqnets.Recurrent(scaled, 3, 4, backend="cpp"), torch.randn(5, 2, 3)
    weights = list(layer.parameters())
    expected = torch.autograd.grad(layer(x)[0].sum(), weights)
    first, second = layer(x)[0].sum(), layer(x)[0].sum()
    monkeypatch.setitem(globals(), "GAIN", 3.0)
    assert all(map(torch.equal, torch.autograd.grad(first, weights), expected))
    with pytest.raises(BackendError, match="its step reads GAIN, which was 2.0 when"):
        torch.autograd.grad(second, weights, create_graph=True)
