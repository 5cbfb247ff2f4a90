"""Which backend serves, who decides, and what is said where one cannot."""

import pytest
import torch

import seqnets
from seqnets import backends
from seqnets.errors import BackendError
from tests.cells import zoo

X = torch.randn(5, 2, 3)


def test_auto_takes_torchs_own_for_standard_cells_and_kernels_for_others():
    assert seqnets.explain(seqnets.LSTM(3, 4), X).backend == "aten"
    why = seqnets.explain(zoo.layer("peephole_lstm", 3, 4), X)
    assert why.backend == "cpp"
    assert "peephole_lstm" in why.reasons["aten"]
    assert why.reasons["cpp"] is None and why.reasons["reference"] is None
    assert "cpp runs this call" in str(why)
    assert "no, torch has no fused operation" in str(why)


def test_precedence(monkeypatch):
    layer, own = seqnets.GRU(3, 4), seqnets.GRU(3, 4, backend="aten")
    monkeypatch.setenv("SEQNETS_BACKEND", "reference")
    assert seqnets.explain(layer, X).backend == "reference"
    assert "SEQNETS_BACKEND" in str(seqnets.explain(layer, X))
    with seqnets.use_backend("auto"):
        assert seqnets.explain(layer, X).backend == "aten"
        with seqnets.use_backend("reference"):
            assert seqnets.explain(layer, X).backend == "reference"
            assert seqnets.explain(own, X).backend == "aten"
        assert seqnets.explain(layer, X).backend == "aten"
    assert seqnets.explain(layer, X).backend == "reference"


def test_use_backend_is_undone_by_an_exception_and_decorates():
    @seqnets.use_backend("reference")
    def decide():
        return seqnets.explain(seqnets.GRU(3, 4), X).backend

    assert decide() == "reference"
    with pytest.raises(KeyError), seqnets.use_backend("reference"):
        raise KeyError
    assert seqnets.explain(seqnets.GRU(3, 4), X).backend == "aten"


def test_use_backend_in_overlapping_threads_leaves_nothing_behind():
    first, second = seqnets.use_backend("reference"), seqnets.use_backend("aten")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert seqnets.explain(zoo.layer("gru", 3, 4), X).asked == "aten (use_backend)"
    second.__exit__(None, None, None)
    assert seqnets.explain(zoo.layer("gru", 3, 4), X).asked == "auto (default)"


def test_unknown_backends_are_refused_with_the_choices(monkeypatch):
    with pytest.raises(BackendError, match="choose from auto, "), seqnets.use_backend("cudnn"):
        pass
    layer = seqnets.GRU(3, 4)
    layer.backend = "no longer there"
    with pytest.raises(BackendError, match="unknown backend 'no longer there'"):
        layer(X)
    monkeypatch.setenv("SEQNETS_BACKEND", " reference ")
    assert seqnets.explain(seqnets.GRU(3, 4), X).backend == "reference"
    monkeypatch.setenv("SEQNETS_BACKEND", "fast")
    with pytest.raises(BackendError, match="unknown backend 'fast'"):
        seqnets.GRU(3, 4)(X)


def test_an_explicit_backend_serves_or_raises_with_reason_and_alternatives():
    layer = zoo.layer("peephole_lstm", 3, 4, backend="aten")
    with pytest.raises(
        BackendError, match="'aten' cannot serve this call: torch has no fused.*can: auto, cpp, reference"
    ):
        layer(X)
    assert seqnets.explain(layer, X).backend is None
    assert "would raise" in str(seqnets.explain(layer, X))


def test_aten_says_what_it_cannot_do():
    lstm = seqnets.LSTM(3, 4, return_all_states=True)
    assert "cell state of the last step" in seqnets.explain(lstm, X).reasons["aten"]
    assert "T=0" in seqnets.explain(seqnets.LSTM(3, 4), X[:0]).reasons["aten"]
    reasons, layer = [], seqnets.LSTM(3, 4)

    def look(x):
        reasons.append(seqnets.explain(layer, x).reasons["aten"])
        return x

    torch.func.vmap(look)(X[None])
    assert "vmap" in reasons[0]


def test_lengths_on_a_gpu_are_announced_to_cost_a_copy_to_the_host(monkeypatch):
    monkeypatch.setattr(backends.aten, "copies_lengths_to_host", lambda problem: problem.lengths is not None)
    explained = seqnets.explain(seqnets.LSTM(3, 4), X, lengths=torch.tensor([1, 2]))
    assert explained.backend == "aten"
    assert "copies the lengths to the host" in str(explained)
    assert seqnets.explain(seqnets.LSTM(3, 4), X).note is None


def test_a_backend_is_a_module_and_a_registry_line(monkeypatch):
    class Nothing:
        @staticmethod
        def why_not(problem):
            return None if problem.cell.name == "gru" else "it only knows the gru"

        run = staticmethod(backends.reference.run)

    monkeypatch.setitem(backends.BACKENDS, "nothing", Nothing)
    assert seqnets.explain(seqnets.GRU(3, 4, backend="nothing"), X).backend == "nothing"
    with pytest.raises(BackendError, match="only knows the gru"):
        seqnets.LSTM(3, 4, backend="nothing")(X)


class Reluctant:
    """Serves the lstm, when asked."""

    @staticmethod
    def why_not(problem):
        return None if problem.cell.name == "lstm" else "it only knows the lstm"

    @staticmethod
    def only_if_asked(problem):
        return "it interprets, which is slow" if problem.x.device.type == "cpu" else None

    @staticmethod
    def run(problem):
        result = backends.reference.run(problem)
        return result._replace(y=result.y + 1000)  # to be seen


@pytest.fixture
def reluctant(monkeypatch):
    monkeypatch.setattr("seqnets.dispatch.BACKENDS", {"reluctant": Reluctant, **backends.BACKENDS})


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_auto_passes_over_a_reluctant_backend_and_a_request_runs_it(reluctant, compiled):
    layer, x = seqnets.LSTM(3, 4), X.clone().requires_grad_()
    torch._dynamo.reset()
    call = torch.compile(layer, fullgraph=True, backend="aot_eager") if compiled else layer
    expected = layer(x)[0]
    assert expected.abs().max() < 1
    torch.testing.assert_close(call(x)[0], expected)
    with seqnets.use_backend("reluctant"):
        torch.testing.assert_close(call(x)[0], expected + 1000)
    torch.testing.assert_close(call(x)[0], expected)


def test_auto_does_not_ask_a_reluctant_backend_whether_it_can_serve(reluctant, monkeypatch):
    """It may have to compile to find out."""
    monkeypatch.setattr(Reluctant, "why_not", lambda problem: pytest.fail("it was asked"))
    assert seqnets.LSTM(3, 4)(X)[0].shape[-1] == 4


def test_a_reluctant_backend_is_explained(reluctant):
    layer = seqnets.LSTM(3, 4)
    explained = seqnets.explain(layer, X)
    assert explained.backend == "aten"
    assert explained.reasons["reluctant"] == "it interprets, which is slow"
    assert "reluctant: no, it interprets, which is slow" in str(explained)
    for name in ("reluctant", "reference"):
        with seqnets.use_backend(name):
            explained = seqnets.explain(layer, X)
        assert explained.backend == name
        assert explained.reasons["reluctant"] is None
    assert seqnets.explain(layer.to("meta"), X.to("meta")).backend == "reluctant"  # there it is not reluctant
    assert seqnets.explain(seqnets.GRU(3, 4), X).reasons["reluctant"] == "it only knows the lstm"


def test_a_reluctant_backend_is_among_those_that_can_serve(reluctant):
    with pytest.raises(BackendError, match="These can: auto, reluctant, cpp, reference$"):
        seqnets.LSTM(3, 4, return_all_states=True, backend="aten")(X)
    with pytest.raises(BackendError, match="it only knows the lstm"):
        seqnets.GRU(3, 4, backend="reluctant")(X)


def test_explaining_draws_nothing():
    layer = zoo.layer("zoneout_gru", 3, 4)
    state = torch.get_rng_state()
    seqnets.explain(layer, X)
    assert torch.equal(torch.get_rng_state(), state)


def test_explain_takes_layers_and_step_modules_only():
    assert seqnets.explain(seqnets.LSTMCell(3, 4), X[0]).backend == "aten"
    assert seqnets.explain(seqnets.LSTM(3, 4), X, return_all_states=True).backend == "cpp"
    with pytest.raises(TypeError, match="the layer inside it"):
        seqnets.explain(torch.nn.Linear(3, 4), X)
