"""What the backend refuses, in one sentence with the way out; `auto` then serves by another one."""

import pytest
import torch

import seqnets
from seqnets.errors import BackendError
from seqnets.kernels import availability
from seqnets.kernels.triton.planning import capacity
from seqnets.kernels.triton.planning.select import use_schedule
from tests.recurrences import LSTM, Case, build, normed, traced

pytestmark = pytest.mark.usefixtures("unchecked")


def refused(layer, *arguments):
    with pytest.raises(BackendError) as caught:
        layer(*arguments)
    message = str(caught.value)
    assert message.startswith("backend 'triton' cannot serve this call: ")
    assert "These can: auto, " in message
    assert seqnets.explain(layer, *arguments).backend is None
    layer.backend = "auto"
    assert layer(*arguments)[0].shape[-1] == layer.output_size * layer.num_directions  # auto serves
    layer.backend = "triton"
    return message


def test_projections_are_refused():
    layer = seqnets.LSTM(3, 4, proj_size=2, backend="triton")
    assert "no projection of the state (proj_size)" in refused(layer, torch.randn(4, 2, 3))


def test_complex_numbers_are_refused():
    layer = seqnets.Recurrent(traced, 3, 4, dtype=torch.complex64, backend="triton")
    with pytest.raises(BackendError, match="compute in float16, bfloat16, float32, float64, not in torch.complex64"):
        layer(torch.randn(4, 2, 3, dtype=torch.complex64))


def test_parameters_of_several_dtypes_are_refused():
    layer = seqnets.Recurrent(traced, 3, 4, backend="triton")
    layer.decay_l0 = torch.nn.Parameter(layer.decay_l0.double())
    with pytest.raises(BackendError, match="not all weights and states have the input's dtype, torch.float32"):
        layer(torch.randn(4, 2, 3))


@seqnets.cell(gates=1, states=("h",))
def cumulative(x, r, state):
    return (x[0] + r[0]).cumsum(-1).tanh()


def test_an_unsupported_cell_is_refused_with_its_line():
    message = refused(seqnets.Recurrent(cumulative, 3, 4, backend="triton"), torch.randn(4, 2, 3))
    assert "'cumulative'" in message
    assert "cumsum" in message
    line = cumulative.step.__code__.co_firstlineno + 2
    assert f"test_refusals.py, line {line}" in message


def test_a_row_reduction_over_heads_is_refused():
    layer = seqnets.Recurrent(normed, 3, 6, num_heads=2, backend="triton")
    with pytest.raises(BackendError, match="reduces over all units, and 2 heads are 2 programs that do not meet"):
        layer(torch.randn(4, 2, 3))


def test_a_schedule_that_cannot_serve_is_refused():
    layer = seqnets.Recurrent(LSTM, 3, 300, backend="triton")
    with pytest.raises(BackendError, match="of shared memory, and sm_90 has 227 KiB"), use_schedule("resident"):
        layer(torch.randn(2, 2, 3))


def test_where_only_the_backward_does_not_fit_inference_is_the_way_out(monkeypatch):
    def only_forward(demand, arch, schedule=None):
        return capacity.Refusal("a step takes too much") if demand.backward else choose(demand, arch, schedule)

    choose = capacity.choose
    monkeypatch.setattr("seqnets.kernels.triton.planning.select.choose", only_forward)
    layer, x = seqnets.GRU(3, 4, backend="triton"), torch.randn(2, 2, 3)
    assert "for gradients, a step takes too much (under torch.no_grad() they would serve)" in refused(layer, x)
    with torch.no_grad():
        assert seqnets.explain(layer, x).backend == "triton"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, "Triton is not installed (pip install triton)"),
        ("3.1.0", "Triton 3.1.0 is too old for its kernels, which need 3.6 (pip install -U triton)"),
    ],
)
def test_triton_must_be_there_and_new_enough(version, message, monkeypatch):
    monkeypatch.setattr(availability, "triton_version", lambda: version)
    assert message in refused(seqnets.LSTM(3, 4, backend="triton"), torch.randn(4, 2, 3))


def test_auto_leaves_the_interpreter_to_those_who_ask():
    layer, x = build(Case(traced)), torch.randn(4, 2, 5)
    explained = seqnets.explain(layer, x)
    assert explained.backend == "cpp"
    assert "ask for it with backend='triton'" in explained.reasons["triton"]
    with seqnets.use_backend("triton"):
        assert seqnets.explain(layer, x).backend == "triton"
