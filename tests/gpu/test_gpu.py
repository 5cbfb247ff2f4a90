"""The kernels on a GPU, compiled: all that interpreted tests check, and what only a GPU has.

Each case compiles its kernels, which takes seconds; ``pytest -n 8 tests/gpu`` compiles side by side. Nobody has run
these tests on every GPU that the capacity rule knows: what a GPU has no room for is skipped, with the rule's reason.
Without a GPU, ``SEQNETS_STUB_GPU=1 pytest -o addopts= tests/gpu`` rehearses all but the numbers; see
`benchmarks.prove.stub_gpu`.
"""

import contextlib
import dataclasses

import pytest
import torch

import seqnets
from seqnets.kernels.availability import why_unavailable
from seqnets.kernels.triton.planning.arch import arch_of
from seqnets.kernels.triton.planning.select import find_plan, use_schedule
from tests import recurrences
from tests.gpu.device import DEVICE, STUB
from tests.recurrences import BFLOAT, CELLS, GRU, HALF, LSTM, RNN, SCHEDULES, TWO_WAY, Case, build, inputs
from tests.tolerance import assert_same_bits, assert_within_policy


def why_skipped():
    if STUB:
        return None
    if not torch.cuda.is_available():
        return "there is no GPU here: torch.cuda.is_available() is false"
    arch = arch_of(torch.device(DEVICE))
    return why_unavailable(DEVICE) or (arch if isinstance(arch, str) else None)


pytestmark = [
    pytest.mark.skipif(why_skipped() is not None, reason=why_skipped() or "it runs"),
    pytest.mark.filterwarnings(
        "ignore:Deterministic behavior was enabled:UserWarning"
    ),  # of cuBLAS, by poisoned allocations
]


@contextlib.contextmanager
def float32_products(precision):
    """``"ieee"`` or ``"tf32"``, in kernels and cuDNN's RNNs, and in cuBLAS before and after them."""
    settings = torch.backends.cudnn.rnn, torch.backends.cuda.matmul
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = precision
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


@pytest.fixture(autouse=True)
def _settings(monkeypatch, tmp_path):
    """float32 means float32, not TF32, and first uses are not checked, but where a test says so."""
    monkeypatch.setenv("SEQNETS_CHECK", "0")
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))
    with float32_products("ieee"):
        yield


def scheduled(case):
    return contextlib.nullcontext() if case.schedule == "chosen" else use_schedule(case.schedule)


def cases(given):
    return pytest.mark.parametrize("case", given, ids=str)


def skip_where_there_is_no_room(case, passes=(False, True)):
    heads = case.options.get("num_heads", 1)
    with scheduled(case):
        for backward in passes:
            plan = find_plan(case.cell, case.H // heads, heads, case.dtype, torch.device(DEVICE), backward)
            if isinstance(plan, str):
                pytest.skip(f"{torch.cuda.get_device_name()}: {plan}")


# ---- what users meet first, first

FIRST = [
    case
    for dtype in (BFLOAT, torch.float32)
    for case in recurrences.by_each_schedule(Case(LSTM, T=12, B=17, H=64, dtype=dtype))
]


@cases(FIRST)
def test_lstm_inference(case):
    skip_where_there_is_no_room(case, passes=(False,))
    with torch.no_grad():
        recurrences.check(case, DEVICE)


@cases(FIRST)
def test_lstm_training(case):
    skip_where_there_is_no_room(case)
    recurrences.check(case, DEVICE)


# ---- as in the interpreter


@cases(
    recurrences.EVERY_CELL + recurrences.IN_HALF + recurrences.IN_DOUBLE + recurrences.ODD_SHAPES
    + recurrences.SATURATED + recurrences.RAGGED + recurrences.OPTIONS + recurrences.EMPTY
)  # fmt: skip
def test_a_recurrence(case):
    skip_where_there_is_no_room(case)
    recurrences.check(case, DEVICE)


LONG = tuple(range(0, 63, 2))
LARGE = [
    *(Case(cell, T=63, B=33, H=128, dtype=dtype) for cell in (RNN, LSTM, GRU) for dtype in (HALF, BFLOAT)),
    *(Case(cell, T=31, B=17, H=100) for cell in CELLS),
    *(Case(cell, T=20, B=17, H=512, dtype=BFLOAT, schedule="tiled") for cell in (LSTM, GRU)),
    Case(GRU, T=12, B=70, H=1024, dtype=HALF),
    Case(LSTM, T=63, B=len(LONG), H=64, dtype=BFLOAT, lengths=LONG, options=TWO_WAY | {"num_layers": 2}),
    Case(LSTM, T=40, B=64, H=256, dtype=BFLOAT, options={"num_heads": 4}),
]


@cases(LARGE)
def test_larger_ones(case):
    skip_where_there_is_no_room(case)
    recurrences.check(case, DEVICE)


@cases(
    [
        *(dataclasses.replace(case, alone=False) for case in recurrences.EVERY_CELL),  # cotangents change no product
        *(case for case in LARGE if case.dtype is torch.float32),
    ]
)
def test_tf32(case):
    with float32_products("tf32"):
        skip_where_there_is_no_room(case)
        recurrences.check(case, DEVICE, tf32=True)


@cases([*recurrences.REPEATED, *LARGE[-3:]])
def test_the_same_input_gives_the_same_bits(case):
    skip_where_there_is_no_room(case)
    recurrences.check_bits(case, DEVICE)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("options", [{}, TWO_WAY, {"num_heads": 2, "bias": False}], ids=str)
@pytest.mark.parametrize("lengths", [(), (4, 2, 0)], ids=["full", "ragged"])
def test_where_arithmetic_is_exact_the_bits_are_those_of_the_reference(lengths, options, schedule):
    recurrences.check_exact(schedule, lengths, options, DEVICE)


# ---- beside cuDNN


def through(module, x, dtype, device):
    """Outputs and gradients of an LSTM or GRU of torch or of this library."""
    module, leaf = module.to(device, dtype), x.to(device, dtype).requires_grad_()
    y, final = module(leaf)
    outputs = [y, *(final if isinstance(final, tuple) else (final,))]
    torch.manual_seed(3)
    cotangents = [torch.randn(output.shape).to(x.dtype).to(output) for output in outputs]
    gradients = torch.autograd.grad(outputs, [leaf, *module.parameters()], cotangents)
    return [tensor.detach().cpu() for tensor in (*outputs, *gradients)]


@pytest.mark.parametrize("dtype", [torch.float32, HALF, BFLOAT], ids=str)
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_kernels_are_as_close_as_cudnn(name, dtype):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(24, 100, num_layers=2, bidirectional=True).to(dtype)
    ours = getattr(seqnets, name)(24, 100, num_layers=2, bidirectional=True, backend="triton").to(dtype)
    oracle = getattr(seqnets, name)(24, 100, num_layers=2, bidirectional=True, backend="reference")
    ours.load_state_dict(theirs.state_dict())
    oracle.load_state_dict(theirs.state_dict())
    x = torch.randn(20, 17, 24).to(dtype)
    found = through(ours, x, dtype, DEVICE), through(theirs, x, dtype, DEVICE), through(oracle, x, torch.float64, "cpu")
    names = ["y", *ours.cell.states, "d x", *(f"d {n}" for n, _ in ours.named_parameters())]
    for what, actual, baseline, truth in zip(names, *found, strict=True):
        assert_within_policy(actual, baseline, truth, what)


# ---- what only a GPU has

ONE_PROCESS = pytest.mark.xdist_group(
    "layer_and_input"
)  # tests that share kernels, which one process then compiles once


@pytest.fixture
def layer_and_input():
    """A ragged, bidirectional layer that has run, and its input."""
    case = Case(LSTM, T=12, B=17, H=40, dtype=HALF, lengths=(12, 0, 1) * 5 + (7, 12), options=TWO_WAY)
    layer = build(case, DEVICE, backend="triton")
    (x, state, lengths) = inputs(case, DEVICE)
    run(layer, x, state, lengths)
    return layer, x, state, lengths


def run(layer, x, state, lengths):
    y, final = layer(x, state, lengths)
    leaves = {"x": x, **dict(zip(final._fields, state, strict=True)), **dict(layer.named_parameters())}
    gradients = torch.autograd.grad(y.float().square().sum(), list(leaves.values()))
    return named(y, final) | {f"d {name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}


def named(y, final):
    return {"y": y, **{f"last {name}": value for name, value in final._asdict().items()}}


@ONE_PROCESS
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_cuda_graph_of_the_forward_pass(layer_and_input, schedule):
    layer, x, state, lengths = layer_and_input
    with use_schedule(schedule), torch.no_grad():
        layer(x, state, lengths)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y, final = layer(x, state, lengths)
        x.copy_(torch.randn_like(x))
        lengths.copy_(lengths.flip(0))
        graph.replay()
        expected = named(*layer(x, state, lengths))
    assert_same_bits(named(y, final), expected)


@ONE_PROCESS
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_cuda_graph_of_both_passes(layer_and_input, schedule):
    layer, x, state, lengths = layer_and_input
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with use_schedule(schedule):
        with torch.cuda.stream(side):  # as PyTorch wants it before a capture of backward passes
            for _ in range(3):
                run(layer, x, state, lengths)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = run(layer, x, state, lengths)
        with torch.no_grad():
            x.copy_(torch.randn_like(x))
        graph.replay()
        assert_same_bits(found, run(layer, x, state, lengths))


def test_a_cuda_graph_is_captured_once_the_first_use_was_checked(monkeypatch):
    monkeypatch.delenv("SEQNETS_CHECK")
    monkeypatch.setattr("seqnets.kernels.triton.first_use.find_verdict.known", {})
    layer, x = seqnets.GRU(5, 7, device=DEVICE, backend="triton"), torch.randn(4, 3, 5, device=DEVICE)
    with torch.no_grad():
        expected = layer(x)[0]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(x)[0]
    graph.replay()
    assert_same_bits({"y": y}, {"y": expected})


@ONE_PROCESS
def test_another_stream(layer_and_input):
    layer, x, state, lengths = layer_and_input
    expected = run(layer, x, state, lengths)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(10_000_000)  # what is not queued behind this reads what is not there yet
        late = x.detach().clone().requires_grad_()
        found = run(layer, late, state, lengths)
    torch.cuda.current_stream().wait_stream(side)
    assert_same_bits(found, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU here, or none")
def test_another_device_than_the_current_one():
    recurrences.check(Case(LSTM, lengths=(4, 0, 2), options=TWO_WAY), "cuda:1")
    assert torch.cuda.current_device() == 0


@ONE_PROCESS
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_nothing_waits_for_the_gpu(layer_and_input, schedule):
    """With lengths on the GPU too."""
    layer, x, state, lengths = layer_and_input
    with use_schedule(schedule):
        run(layer, x, state, lengths)
        torch.cuda.set_sync_debug_mode("error")
        try:
            run(layer, x, state, lengths)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("cell", [GRU, recurrences.masked], ids=lambda cell: cell.name)
def test_a_compiled_layer(cell):
    case = Case(cell, lengths=(4, 0, 2), options=TWO_WAY)
    layer, (x, state, lengths) = build(case, DEVICE, backend="triton").eval(), inputs(case, DEVICE)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager" if STUB else "inductor")
    torch.testing.assert_close(run(compiled, x, state, lengths), run(layer, x, state, lengths))


@pytest.mark.parametrize("dtype", [BFLOAT, HALF], ids=str)
def test_autocast(dtype):
    layer, x = seqnets.LSTM(5, 7, device=DEVICE, backend="triton"), torch.randn(4, 3, 5, device=DEVICE)
    with torch.autocast(DEVICE, dtype):
        y, (h, c) = layer(x)
        # with the stub torch's LSTM is on the CPU, where it has no float16, and without AVX-512 no bfloat16
        theirs = dtype if STUB else torch.nn.LSTM(5, 7, device=DEVICE)(x)[0].dtype
    assert y.dtype == h.dtype == c.dtype == theirs == dtype
    y.sum().backward()
    assert layer.weight_hh_l0.grad.dtype is torch.float32


@pytest.mark.skipif(STUB, reason="with the stub auto chooses for the CPU, and compiles C++ for it")
def test_auto_serves_a_cell_that_torch_lacks_and_checks_its_first_use(monkeypatch):
    monkeypatch.delenv("SEQNETS_CHECK")
    layer, x = build(Case(recurrences.nbrc), DEVICE), torch.randn(4, 3, 5, device=DEVICE)
    assert seqnets.explain(layer, x).backend == "triton"
    assert seqnets.explain(seqnets.LSTM(5, 7, device=DEVICE), x).backend == "aten"


def test_offsets_beyond_32_bits():
    """More than 2**31 numbers in every tensor with time steps; the last rows are right."""
    T, B, H = 65, 5 if STUB else 2**19 + 3, 64
    needed = 10 * T * B * H * 2
    free = torch.cuda.mem_get_info()[0]
    if free < needed:
        pytest.skip(f"it takes {needed / 2**30:.0f} GiB, and {free / 2**30:.0f} are free")
    layer = seqnets.RNN(1, H, bias=False, device=DEVICE, dtype=HALF, backend="triton")
    x = torch.randn(T, B, 1, device=DEVICE, dtype=HALF, requires_grad=True)
    few = x[:, -3:].detach().clone().requires_grad_()
    y, expected = layer(x)[0], layer(few)[0]
    assert_same_bits({"last rows of y": y[:, -3:]}, {"last rows of y": expected})
    (d_x,) = torch.autograd.grad(y[-1].sum(), x)
    (d_few,) = torch.autograd.grad(expected[-1].sum(), few)
    assert_within_policy(d_x[:, -3:], d_few, d_few.double(), "d x")
