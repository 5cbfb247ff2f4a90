"""The check of a kernel's first use: what it refuses, what it lets pass, and where its verdict is kept."""

import json
import logging

import pytest
import torch

import seqnets
from seqnets.errors import BackendError
from seqnets.kernels import availability, store
from seqnets.kernels.triton import first_use, launch
from seqnets.kernels.triton.agreement import SIZES, worst_error
from seqnets.kernels.triton.module import generate
from seqnets.kernels.triton.support import why_refused
from seqnets.kernels.triton.trial import Variant
from tests.recurrences import Case, build, right, traced, wrong

# out of a step's domain NumPy, which interprets, warns where a GPU is silent
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|divide by zero|overflow) encountered:RuntimeWarning")


def gradients(module, *arguments):
    y = module(*arguments)[0]
    return [y, *torch.autograd.grad(y.square().sum(), list(module.parameters()))]


@pytest.fixture(params=["step", "gradient"])
def spoilt(request, monkeypatch, checked):
    """One function that is generated for `right` is that for `wrong`."""

    def generate_wrongly(cell):
        function = getattr(generate(wrong), request.param)
        return generate(cell)._replace(**{request.param: function}) if cell is right else generate(cell)

    monkeypatch.setattr(launch, "generate", generate_wrongly)
    return {"step": "y", "gradient": "gradient of .*"}[request.param]


def test_a_kernel_that_disagrees_is_refused(spoilt):
    message = f"on first use its kernels disagreed with the cell's step: {spoilt} is off by .* where .* is allowed "
    with pytest.raises(
        BackendError, match=message + r"\(SEQNETS_CHECK=0 switches this check off.*can: auto, cpp, reference"
    ):
        seqnets.Recurrent(right, 3, 4, backend="triton")(torch.randn(4, 2, 3))


def test_auto_falls_back_from_a_kernel_that_disagrees(spoilt, eager):
    layer, x = seqnets.Recurrent(right, 3, 4), torch.randn(4, 2, 3)
    found = gradients(layer, x)
    explained = seqnets.explain(layer, x)
    assert explained.backend == "reference"
    assert "disagreed with the cell's step" in explained.reasons["triton"]
    layer.backend = "reference"
    assert all(map(torch.equal, found, gradients(layer, x)))


def test_compiled_code_falls_back_too(spoilt, eager):
    layer, x = seqnets.Recurrent(right, 3, 4), torch.randn(4, 2, 3)
    torch._dynamo.reset()
    found = gradients(torch.compile(layer, fullgraph=True, backend="aot_eager"), x)
    layer.backend = "reference"
    torch.testing.assert_close(found, gradients(layer, x))


def test_the_check_can_be_switched_off(spoilt, monkeypatch):
    monkeypatch.setenv("SEQNETS_CHECK", "0")
    layer, x = seqnets.Recurrent(right, 3, 4, backend="triton"), torch.randn(4, 2, 3)
    found = gradients(layer, x)
    layer.backend = "reference"
    expected = gradients(layer, x)
    assert not all(map(torch.allclose, found, expected))


def test_verdicts_are_kept_on_disk(checked, tmp_path, monkeypatch):
    layer, x = seqnets.Recurrent(right, 3, 4, backend="triton"), torch.randn(4, 2, 3)
    assert seqnets.explain(layer, x).backend == "triton"
    (path,) = tmp_path.glob("cache/kernels/check-*.json")
    kept = json.loads(path.read_text())
    assert kept["value"] == {"why": None}
    assert kept["key"]["dtype"] == "torch.float32"
    assert kept["key"]["triton"] == availability.triton_version()

    monkeypatch.setattr(first_use, "_judge", lambda *_: "it was judged again")
    assert seqnets.explain(layer, x).backend == "triton"  # from memory
    first_use.find_verdict.cache_clear()
    assert seqnets.explain(layer, x).backend == "triton"  # from disk
    first_use.find_verdict.cache_clear()
    path.write_text(path.read_text().replace("null", '"known to be wrong"'))
    assert seqnets.explain(layer, x).reasons["triton"] == "known to be wrong"
    first_use.find_verdict.cache_clear()
    path.write_text("{")
    assert seqnets.explain(layer, x).reasons["triton"] == "it was judged again"
    layer.double()
    assert seqnets.explain(layer, x.double()).reasons["triton"] == "it was judged again"  # another kernel


def test_a_cuda_graph_is_captured_only_after_the_check(checked, monkeypatch):
    monkeypatch.setattr(store, "environment", lambda device: {})
    monkeypatch.setattr(first_use, "_judge", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    question = right.key, 1, 4, 1, False, (), torch.float32, True, False, False, False, "cuda:0"
    assert "run the layer once before" in why_refused(*question)
    with monkeypatch.context() as later:
        later.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        assert why_refused(*question) is None
    assert why_refused(*question) is None


AROUND = {
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "another default device": lambda: torch.device("meta"),
    "fake tensors": lambda: torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_the_check_draws_nothing_and_sees_nothing_of_its_caller(around, checked, tmp_path):
    layer, x = build(Case(traced), backend="triton"), torch.randn(4, 2, 5)
    state = torch.get_rng_state()
    with around():
        assert seqnets.explain(layer, x).backend == "triton"
    assert len(list(tmp_path.glob("cache/kernels/check-*.json"))) == 1
    assert torch.equal(torch.get_rng_state(), state)


@seqnets.cell(gates=1, states=("h", "spike"))
def spiking(x, r, state):
    """A state without a gradient."""
    h = 0.9 * state.h + x[0] + r[0] - state.spike
    return h, (h > 0.5).to(h.dtype)


@seqnets.cell(gates=1, states=("h", "n"))
def normalized(x, r, state):
    """Defined where its second state is positive, as it always is."""
    n = state.n.sqrt() + (x[0] + r[0]).exp()
    return x[0] / n, n


@pytest.mark.parametrize("cell", [spiking, normalized], ids=lambda cell: cell.name)
def test_cells_without_some_gradient_or_value_pass_the_check(cell, checked):
    layer, x, found = seqnets.Recurrent(cell, 3, 4), torch.randn(4, 2, 3, requires_grad=True), []
    for layer.backend in ("triton", "reference"):
        y, _ = layer(x)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        found.append([y, slope, *torch.autograd.grad(slope.sum(), list(layer.parameters()), materialize_grads=True)])
    torch.testing.assert_close(*found)


@pytest.fixture
def broken(monkeypatch, checked):
    """Kernels whose compiler gives up, as on a GPU that nobody tried."""

    def fail(*_):
        raise RuntimeError("out of resource: shared memory\nRequired: 300000")

    monkeypatch.setattr(first_use, "_judge", fail)


def test_a_kernel_that_fails_is_refused_with_its_error_and_nothing_is_kept(broken, tmp_path, caplog):
    layer = seqnets.GRU(3, 4, backend="triton")
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(BackendError, match=r"failed \(RuntimeError: out of resource: shared memory\)"),
    ):
        layer(torch.randn(2, 1, 3))
    assert "Traceback" in caplog.text
    assert not list(tmp_path.rglob("check-*.json"))  # it may have been another program's memory


def test_auto_goes_on_without_it(broken, eager):
    layer, x = seqnets.Recurrent(right, 3, 4), torch.randn(2, 1, 3)
    assert torch.equal(layer(x)[0], seqnets.use_backend("reference")(layer)(x)[0])
    assert "out of resource" in seqnets.explain(layer, x).reasons["triton"]


@pytest.fixture
def short_of_memory(monkeypatch, checked):
    """A GPU whose memory another program has, for now."""
    judge, short = first_use._judge, [True]

    def once(*question):
        if short.pop() if short else False:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return judge(*question)

    monkeypatch.setattr(first_use, "_judge", once)


def test_a_passing_lack_of_memory_is_not_remembered(short_of_memory):
    layer, x = seqnets.Recurrent(right, 3, 4, backend="triton"), torch.randn(4, 2, 3)
    with pytest.raises(BackendError, match="no memory left for the check"):
        layer(x)
    assert layer(x)[0].shape == (4, 2, 4)


@seqnets.cell(gates=1, states=("h",))
def rectified(x, r, state):
    return (x[0] + r[0]).relu()


@seqnets.cell(gates=1, states=("h", "u"))
def integrate_and_fire(x, r, state):
    """A spike where the membrane reaches its threshold; the state that decides is carried unrounded."""
    u = 0.9 * state.u * (1 - state.h) + x[0] + r[0]
    return (u > 0.5).to(u.dtype), u


@seqnets.cell(gates=1, states=("h", "u"))
def leaky(x, r, state):
    """Reset by the state before, on which a spike depends in no other way."""
    reset = (state.u > 1).to(state.u.dtype)
    u = 0.9 * state.u + x[0] + r[0] - reset
    return (u > 1).to(u.dtype), u


@seqnets.cell(gates=1, states=("h", "u"))
def inverted(x, r, state):
    reset = (state.u > 1).to(state.u.dtype)
    u = 0.9 * state.u + x[0] + r[0] - reset
    return (u < 1).to(u.dtype), u


@seqnets.cell(gates=1, states=("h",))
def logarithmic(x, r, state):
    return (x[0] * (r[0] + 1)).log()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("cell", [rectified, integrate_and_fire, leaky, logarithmic], ids=lambda cell: cell.name)
@pytest.mark.parametrize("differentiated", [True, False], ids=["training", "inference"])
def test_kinks_jumps_and_narrow_domains_pass_the_check(cell, dtype, differentiated, checked):
    variant = Variant(cell.key, 1, 32, 2, True, (), dtype, False, differentiated, False, len(cell.states) > 1)
    assert worst_error(cell, [variant], torch.device("cpu"), SIZES["cuda"]).ratio <= 1


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_kernels_that_jump_the_wrong_way_are_found(dtype, monkeypatch, checked):
    monkeypatch.setattr(launch, "generate", lambda cell: generate(inverted if cell is leaky else cell))
    variant = Variant(leaky.key, 1, 32, 2, True, (), dtype, False, True, True, True)
    assert worst_error(leaky, [variant], torch.device("cpu"), SIZES["cuda"]).ratio > 1


def without_weight(inputs):
    return inputs._replace(weight=torch.zeros_like(inputs.weight))


def with_gates_swapped(inputs):
    return inputs._replace(bias=inputs.bias.flip(-1))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("spoil", [without_weight, with_gates_swapped], ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "keeps", [(False, False), (True, False), (True, True)], ids=["inference", "recompute", "keep r"]
)
def test_kernels_that_multiply_wrongly_are_found(keeps, spoil, monkeypatch, checked):
    forward = launch.forward
    monkeypatch.setattr(launch, "forward", lambda cell, inputs, *rest: forward(cell, spoil(inputs), *rest))
    question = 1, 16, 2, True, (), torch.float32, True, *keeps, False
    assert "disagreed with the cell's step: r" in why_refused(seqnets.cells.lstm.key, *question, "cpu")


def test_a_wrong_product_before_backward_is_found(monkeypatch, checked):
    recompute = launch.recompute
    monkeypatch.setattr(launch, "recompute", lambda *given: recompute(*given) * 0)
    question = 1, 16, 2, True, (), torch.float32, True, True, False, False
    assert "disagreed with the cell's step: r 1" in why_refused(seqnets.cells.lstm.key, *question, "cpu")


@pytest.mark.sampled(4)
@pytest.mark.parametrize("keep_r", [False, True], ids=["recomputed", "kept"])
@pytest.mark.parametrize("all_states", [False, True], ids=["", "all states"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("D", [1, 2])
def test_right_kernels_of_every_variant_pass_the_check(D, ragged, all_states, keep_r, checked):
    for differentiated in (True, False) if not keep_r else (True,):
        question = 1, 5, D, ragged, (), torch.float32, True, differentiated, keep_r, all_states
        assert why_refused(seqnets.cells.lstm.key, *question, "cpu") is None


@seqnets.cell(gates=1, states=("h",))
def undefined(x, r, state):
    return (-1 - (x[0] + r[0]).square()).sqrt()


def test_kernels_that_cannot_be_judged_are_refused(checked):
    layer = seqnets.Recurrent(undefined, 3, 4, backend="triton")
    with pytest.raises(BackendError, match=r"no finite values on random numbers.*SEQNETS_CHECK=0"):
        layer(torch.randn(4, 2, 3))


@pytest.mark.parametrize("all_states", [False, True], ids=["", "all states"])
def test_what_a_call_without_gradients_keeps_is_what_is_checked(all_states, checked, tmp_path):
    """Kernels that return every state are others than those that return the output alone."""
    layer = build(Case(traced), backend="triton")
    with torch.no_grad():
        layer(torch.randn(4, 2, 5), return_all_states=all_states)
    (path,) = tmp_path.glob("cache/kernels/check-*.json")
    key = json.loads(path.read_text())["key"]
    assert (key["differentiated"], key["all_states"]) == (False, all_states)
