"""The kernels within PyTorch: operators, compilation, export, double backward, autocast, transforms."""

import copy
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import seqnets
from seqnets.cells.registry import find_cell
from seqnets.errors import BackendError, CellError
from seqnets.kernels.triton.launch import Launch
from seqnets.kernels.triton.operator import recurrence, recurrence_backward
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

pytestmark = pytest.mark.usefixtures("unchecked")


def gradients(module, *arguments):
    y = module(*arguments)[0]
    return [y, *torch.autograd.grad(y.square().sum(), list(module.parameters()))]


# ---- operators


def operands(cell, D=1, bias=True, lengths=None, per_step=()):
    T, B, N, U, Q = 3, 2, 2, 3, 3 * cell.gates

    def normal(*shape):
        return torch.randn(shape, requires_grad=True)

    return (
        normal(T, B, D, N, Q),
        [normal(D, B, N, U) for _ in cell.states],
        normal(D, N, U, Q),
        normal(D, N, Q) if bias else None,
        [normal(D, N, U) for _ in cell.params],
        [torch.rand(D, T if per else 1, B, N, U).round() for per in per_step],
        None if lengths is None else torch.tensor(lengths),
    )


OPERANDS = {
    "ragged, two-way, no bias": lambda: (GRU, operands(GRU, D=2, bias=False, lengths=[3, 1]), True),
    "recomputed, with parameters": lambda: (traced, operands(traced), False),
    "masked": lambda: (masked, operands(masked, per_step=(False, True)), True),
}


@pytest.mark.parametrize("make", OPERANDS.values(), ids=OPERANDS)
def test_the_operators_are_as_pytorch_wants_them(make):
    cell, given, keep_r = make()
    torch.library.opcheck(recurrence, (*given, cell.key, True, keep_r))
    with torch.no_grad():
        results = recurrence(*given, cell.key, True, keep_r)
        states, finals = results[: len(cell.states)], results[len(cell.states) : 2 * len(cell.states)]
        cotangents = (
            [None, *map(torch.randn_like, states[1:])],
            [torch.randn_like(finals[0]), *[None] * len(finals[1:])],
        )
        torch.library.opcheck(
            recurrence_backward, (*given, states, results[-1] if keep_r else None, *cotangents, cell.key)
        )


def test_a_forward_that_kept_nothing_has_no_backward():
    y, *_ = recurrence(*operands(GRU), GRU.key, False, False)
    with pytest.raises(RuntimeError, match="keep_states=False"):
        y.sum().backward()


# ---- torch.compile and torch.export


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("cell", "compiler"),
    [(GRU, "eager"), (LSTM, "inductor"), (traced, "aot_eager"), (masked, "inductor"), (normed, "eager")],
    ids=lambda value: getattr(value, "name", value),
)
def test_compiles_to_one_graph(cell, compiler):
    layer = build(Case(cell), backend="triton", bidirectional=True).eval()
    (x, state, _), lengths = inputs(Case(cell, options={"bidirectional": True})), torch.tensor([4, 0, 2])
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=compiler)
    for arguments in ((x,), (x, state, lengths)):
        torch.testing.assert_close(gradients(compiled, *arguments), gradients(layer, *arguments))


def test_a_compiled_graph_keeps_the_operator_whole():
    seen = []

    def note(graph, example_inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    layer = seqnets.GRU(3, 4, backend="triton")
    torch._dynamo.reset()
    torch.compile(layer, fullgraph=True, backend=note)(torch.randn(4, 2, 3))
    assert sum("seqnets.recurrence" in target for target in seen) == 1
    assert not any("sigmoid" in target for target in seen)


def test_one_compilation_serves_every_length_and_batch():
    layer = seqnets.LSTM(3, 4, backend="triton")
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="inductor")
    counter = torch._dynamo.utils.counters["stats"]
    counter.clear()
    for T, B in ((6, 2), (3, 5), (4, 7)):  # at first, other numbers than the sizes of the layer
        arguments = torch.randn(T, B, 3), None, torch.randint(0, T + 1, (B,))
        torch.testing.assert_close(gradients(compiled, *arguments), gradients(layer, *arguments))
    assert counter["unique_graphs"] == 1


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = seqnets.LSTM(3, 4, num_layers=2, bidirectional=True, backend="triton")

    def forward(self, x, lengths):
        return self.recurrent(x, lengths=lengths)[0]


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_program_runs(strict, tmp_path):
    model, x, lengths = Model(), torch.randn(4, 3, 3), torch.tensor([4, 0, 2])
    time, batch = torch.export.Dim("T", min=2), torch.export.Dim("B", min=2)
    dynamic = {"x": {0: time, 1: batch}, "lengths": {0: batch}}
    program = torch.export.export(model, (x, lengths), dynamic_shapes=dynamic, strict=strict)
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    for T, B in ((4, 3), (6, 2)):
        x, lengths = torch.randn(T, B, 3), torch.randint(0, T + 1, (B,))
        assert torch.equal(loaded(x, lengths), model(x, lengths))


@pytest.mark.parametrize("strict", [True, False])
def test_a_layer_is_exported_before_anything_ran(strict, checked):
    layer, x = seqnets.Recurrent(define(0.3), 3, 4, backend="triton"), torch.randn(4, 2, 3)
    program = torch.export.export(layer, (x,), strict=strict).module()
    assert torch.equal(program(x)[0], layer(x)[0])


# ---- derivatives, dtypes and transforms


def test_second_derivatives():
    layer = seqnets.GRU(2, 2, dtype=torch.float64, backend="triton")
    x, lengths = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True), torch.tensor([2, 1])
    names, weights = zip(*layer.named_parameters(), strict=True)

    def run(x, *weights):
        values = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(layer, values, (x,), {"lengths": lengths})

    assert torch.autograd.gradgradcheck(run, (x, *weights), fast_mode=True)


@pytest.mark.parametrize("cell", [LSTM, traced, masked, normed], ids=lambda cell: cell.name)
def test_second_derivatives_are_those_of_the_reference(cell):
    case = Case(cell, dtype=torch.float64, lengths=(4, 0, 2), options={"bidirectional": True})
    layer, (x, state, lengths), found = build(case), inputs(case), []
    for layer.backend in ("triton", "reference"):
        torch.manual_seed(0)  # the same masks
        leaves = [x, *state, *layer.parameters()]
        y, final = layer(x, state, lengths)
        first = torch.autograd.grad(y.sin().sum() + final[-1].sum(), leaves, create_graph=True, materialize_grads=True)
        found.append(torch.autograd.grad(sum(d.square().sum() for d in first), leaves, materialize_grads=True))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("cell", [LSTM, traced, masked, normed], ids=lambda cell: cell.name)
def test_batched_gradients_are_those_of_the_reference(cell):
    check_batched_gradients(cell, "triton")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("create_graph", [True, False], ids=["to be differentiated again", "batched"])
@pytest.mark.parametrize("form", ENTANGLED)
@pytest.mark.parametrize("cell", [LSTM, traced], ids=lambda cell: cell.name)
def test_each_path_to_an_input_counts_once(cell, form, create_graph):
    check_entangled_gradients(cell, form, create_graph, "triton")


@pytest.mark.parametrize("T", [0, 3])
def test_empty_sequences_have_gradients_of_all_kinds(T):
    check_gradients_of_states(T, "triton")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_and_returns_its_dtype(dtype):
    layer, x = seqnets.LSTM(3, 4, bidirectional=True, backend="triton"), torch.randn(4, 2, 3, requires_grad=True)
    with torch.autocast("cpu", dtype):
        y, (h, c) = layer(x)
        why = seqnets.explain(layer, x)
    assert why.backend == "triton"
    assert y.dtype == h.dtype == c.dtype == dtype
    (y.sum() + c.sum()).backward()
    assert {tensor.grad.dtype for tensor in (x, *layer.parameters())} == {torch.float32}
    cast = copy.deepcopy(layer).to(dtype)
    assert torch.equal(cast(x.to(dtype))[0], y)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_takes_what_the_layers_before_return(dtype):
    """A linear layer under autocast returns its dtype, and so do ours."""
    torch.manual_seed(0)
    model = torch.nn.ModuleList([torch.nn.Linear(3, 4), seqnets.GRU(4, 5), build(Case(traced))])
    x, found = torch.randn(5, 2, 3), []
    for backend in ("triton", "reference"):
        with seqnets.use_backend(backend), torch.autocast("cpu", dtype):
            y = model[2](model[1](model[0](x))[0])[0]
        found.append([y, *torch.autograd.grad(y.float().square().sum(), list(model.parameters()))])
        assert found[-1][0].dtype == dtype
    torch.testing.assert_close(*found, rtol=0.1, atol=0.1)


def test_autocast_leaves_other_dtypes_alone():
    layer, x = seqnets.LSTM(3, 4, dtype=torch.float64, backend="triton"), torch.randn(4, 2, 3, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x)[0].dtype == torch.float64


SLOPE, h = 2.0, None


@seqnets.cell(gates=1, states=("h",))
def annealed(x, r, state):
    return ((x[0] + r[0]) * SLOPE).tanh() + state.h / 2


def test_a_number_that_the_step_reads_and_that_changed_is_refused(eager, monkeypatch):
    """Kernels are generated once; `h` is the name of an attribute as well, and changes without consequence."""
    layer, x = seqnets.Recurrent(annealed, 3, 4), torch.randn(4, 2, 3)
    torch._dynamo.reset()
    compiled = torch.compile(seqnets.use_backend("triton")(layer), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x)[0], seqnets.use_backend("reference")(layer)(x)[0])
    y = layer(x)[0]
    monkeypatch.setitem(globals(), "h", 7.0)
    assert seqnets.explain(layer, x).backend == "triton"
    monkeypatch.setitem(globals(), "SLOPE", 0.5)
    reason = "its step reads SLOPE, which was 2.0 when the kernels were generated and now is 0.5: give what changes as"
    assert seqnets.explain(layer, x).reasons["triton"].startswith(reason)
    torch.testing.assert_close(layer(x)[0], seqnets.use_backend("reference")(layer)(x)[0])
    with pytest.raises(seqnets.errors.BackendError, match="reads SLOPE"):
        compiled(x)
    found = torch.autograd.grad(y.sum(), layer.weight_hh_l0)  # of what was computed with 2.0
    monkeypatch.setitem(globals(), "SLOPE", 2.0)
    expected = torch.autograd.grad(seqnets.use_backend("reference")(layer)(x)[0].sum(), layer.weight_hh_l0)
    torch.testing.assert_close(found, expected)


def by_vmap(layer, x):
    return torch.func.vmap(lambda one: layer(one)[0])(torch.stack([x, x]))[0]


def by_jvp(layer, x):
    return torch.func.jvp(lambda x: layer(x)[0], (x,), (torch.ones_like(x),))[0]


def by_grad(layer, x):
    return layer(x + 0 * torch.func.grad(lambda x: layer(x)[0].sum())(x))[0]


def by_dual_numbers(layer, x):
    forward = torch.autograd.forward_ad
    with forward.dual_level():
        return forward.unpack_dual(layer(forward.make_dual(x, torch.ones_like(x)))[0]).primal


@pytest.mark.parametrize("transform", [by_vmap, by_jvp, by_grad, by_dual_numbers], ids=lambda f: f.__name__)
def test_functional_transforms_go_to_the_reference_and_explain_says_why(transform, eager):
    layer, x, explained = build(Case(traced)), torch.randn(4, 2, 5), []
    layer.register_forward_pre_hook(lambda module, given: explained.append(seqnets.explain(module, *given)))
    torch.testing.assert_close(transform(layer, x), layer(x)[0])
    assert explained[0].backend == "reference"
    assert "torch.func transforms (vmap, jvp, grad) and forward-mode AD" in explained[0].reasons["triton"]
    assert explained[-1].backend == "triton"
    layer.backend = "triton"
    with pytest.raises(BackendError, match="forward-mode AD. These can: auto, reference"):
        transform(layer, x)


# ---- cells by name


def define(scale):
    @seqnets.cell(gates=1, states=("h",))
    def redefined(x, r, state):
        return (x[0] + r[0]).tanh() * scale

    return redefined


def test_a_cell_that_is_defined_again_leaves_old_layers_as_they_were():
    x, torch_state = torch.randn(4, 2, 3), torch.get_rng_state()
    layers, graphs, expected = [], [], []
    for scale in (1.0, 0.5):
        torch.set_rng_state(torch_state)
        layers.append(seqnets.Recurrent(define(scale), 3, 4, backend="triton"))
        torch._dynamo.reset()
        graphs.append(torch.export.export(layers[-1], (x,), strict=False).module())
        expected.append(layers[-1](x)[0])
    assert not torch.allclose(*expected)
    for module, y in zip([*layers, *graphs], [*expected, *expected], strict=True):
        assert torch.equal(module(x)[0], y)
    keys = [layer.cell.key for layer in layers]
    assert keys[1].startswith(keys[0].partition("#")[0])
    assert [find_cell(key) for key in keys] == [layer.cell for layer in layers]


def test_cells_are_found_by_key_or_said_to_be_missing():
    assert find_cell(LSTM.key) is LSTM
    with pytest.raises(CellError, match=r"cannot be imported \(No module named 'no_such_module'\); define it before"):
        find_cell("no_such_module:cell")
    with pytest.raises(CellError, match="there is no cell 'tests.recurrences:missing'; define it before"):
        find_cell("tests.recurrences:missing")


def test_a_users_script_runs_in_the_interpreter(tmp_path, checked):
    script = tmp_path / "my_cell.py"
    script.write_text(
        textwrap.dedent("""\
            import torch, seqnets

            @seqnets.cell(gates=("f", "c"), states=("h",))
            def light(x, r, state):
                forget = (x.f + r.f).sigmoid()
                return forget * state.h + (1 - forget) * (x.c + r.c).tanh()

            layer, x = seqnets.Recurrent(light, 8, 16), torch.randn(5, 2, 8)
            expected = layer(x)[0]
            layer.backend = "triton"
            y = layer(x)[0]
            y.sum().backward()
            print("error", (y - expected).abs().max().item() < 1e-6, layer.weight_hh_l0.grad.isfinite().all().item())
            """)
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(seqnets.__file__).parents[1])}
    ran = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout == "error True True\n", ran.stderr


def test_one_thread_at_a_time_is_in_the_interpreter():
    running, most = [], []

    class Kernel:
        def __getitem__(self, grid):
            return self

        def __call__(self):
            running.append(None)
            time.sleep(0.01)
            most.append(len(running))
            running.pop()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: Launch(Kernel(), (1,), (), {}, {}).run(), range(8)))
    assert most == [1] * 8


def test_threads_of_python_do_not_meet():
    layer, xs = seqnets.GRU(3, 20, backend="triton"), [torch.randn(4, n, 3) for n in range(1, 9)]
    expected = [gradients(layer, x) for x in xs]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda x: gradients(layer, x), xs))
    for one, other in zip(expected, found, strict=True):
        assert all(map(torch.equal, one, other))
