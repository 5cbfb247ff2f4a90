"""The dispatch remembers its decision for a kind of call. What it remembers is what it would decide anew."""

import contextlib
import itertools
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad

import seqnets
from seqnets import dispatch
from seqnets.backends import BACKENDS, autoselect
from tests.recurrences import masked

X = torch.randn(20, 40, 30)


def planted(shape):
    """Return times by which the C++ kernels win, but for long sequences, and for each of some properties."""
    if (shape.directions + shape.ragged + shape.threads + (not shape.differentiated)) % 2:
        return autoselect.Times(1.0, 3.0, 0.3)
    return autoselect.Times(2.0, 1.9, 1.05, short=(2.0, 1.0))


@pytest.fixture(autouse=True)
def times(monkeypatch):
    monkeypatch.delenv("SEQNETS_MEASURE")
    monkeypatch.setattr(autoselect.measured, "known", {})
    monkeypatch.setattr(autoselect, "_read_or_measure", planted)


SCALE = 0.5


@seqnets.cell(gates=1, states=("h",))
def scaled(x, r, state):
    return (x[0] + r[0]).tanh() * SCALE


class Wrapped(torch.Tensor):
    """Handles each operation itself."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return super().__torch_function__(function, types, args, kwargs or {})


LSTM, GRU = seqnets.LSTM(30, 20), seqnets.GRU(30, 20)
CALLS = {
    "plain": lambda: LSTM(X),
    "another cell": lambda: GRU(X),
    "without gradients": lambda: torch.no_grad()(LSTM)(X),
    "gradients of the input": lambda: LSTM(X.clone().requires_grad_()),
    "little work": lambda: LSTM(X[:1, :1]),
    "long": lambda: LSTM(X[:, :1].expand(20, 1, 30).repeat(40, 1, 1)),
    "empty": lambda: LSTM(X[:0]),
    "no rows": lambda: LSTM(X[:, :0]),
    "ragged": lambda: LSTM(X, lengths=torch.full((40,), 7)),
    "all states": lambda: LSTM(X, return_all_states=True),
    "float64": lambda: seqnets.LSTM(30, 20, dtype=torch.float64)(X.double()),
    "autocast": lambda: _under(torch.autocast("cpu", torch.bfloat16), LSTM),
    "autocast to float16": lambda: _under(torch.autocast("cpu", torch.float16), LSTM),
    "projection": lambda: seqnets.LSTM(30, 20, proj_size=7)(X),
    "heads": lambda: seqnets.LSTM(30, 20, num_heads=2)(X),
    "two layers": lambda: seqnets.LSTM(30, 20, 2)(X),
    "two directions": lambda: seqnets.LSTM(30, 20, bidirectional=True)(X),
    "by name": lambda: seqnets.LSTM(30, 20, backend="reference")(X),
    "by context": lambda: _under(seqnets.use_backend("aten"), LSTM),
    "two threads": lambda: _under(_switched(torch.set_num_threads, 2, torch.get_num_threads()), LSTM),
    "deterministic": lambda: _under(_switched(torch.use_deterministic_algorithms, True, False), LSTM),
    "own rules": lambda: LSTM(X.as_subclass(Wrapped)),
    "vmap": lambda: torch.func.vmap(lambda x: LSTM(x)[0])(X[None]),
    "forward mode": lambda: _forward_mode(LSTM),
    "fake": lambda: _fake(),
}


def _under(context, layer):
    with context:
        return layer(X)


@contextlib.contextmanager
def _switched(switch, value, before):
    switch(value)
    try:
        yield
    finally:
        switch(before)


def _forward_mode(layer):
    with forward_ad.dual_level():
        return layer(forward_ad.make_dual(X, torch.ones_like(X)))


def _fake():
    with torch._subclasses.FakeTensorMode():
        return seqnets.LSTM(30, 20)(torch.empty(20, 40, 30))


@pytest.fixture
def served(monkeypatch):
    """The names of the backends that run, in order."""
    names = []
    for name, module in BACKENDS.items():
        run = module.run
        monkeypatch.setattr(module, "run", lambda problem, name=name, run=run: names.append(name) or run(problem))
    return names


def test_what_is_remembered_is_what_would_be_decided_anew(served):
    """Each call, with all others remembered, is served as where nothing is."""
    anew = {}
    for name, call in CALLS.items():
        dispatch.forget_choices()
        served.clear()
        call()
        anew[name] = list(served)
    assert {"cpp", "aten", "reference"} <= {name for names in anew.values() for name in names}
    dispatch.forget_choices()
    for _ in range(2):
        for name, call in CALLS.items():
            served.clear()
            call()
            assert served == anew[name], name


def test_a_number_that_the_step_reads_and_that_changed_is_seen(served, monkeypatch):
    layer = seqnets.Recurrent(scaled, 30, 20)
    layer(X)
    monkeypatch.setitem(globals(), "SCALE", 0.25)
    with seqnets.use_backend("reference"):
        expected = layer(X)[0]
    assert torch.equal(layer(X)[0], expected) and served == ["cpp", "reference", "reference"]


class Learned(seqnets.Mask):
    """A mask that requires gradients in the layers that `wanted` says, in turn."""

    wanted = iter(())

    def draw(self, *given):
        return super().draw(*given).requires_grad_(next(self.wanted))


def test_masks_of_every_layer_count(served, monkeypatch):
    mask = Learned(0.5)
    layer = seqnets.Recurrent(masked, 30, 20, 2, masks={"once": mask, "each": seqnets.Mask(0.5, per="step")})
    monkeypatch.setattr(Learned, "wanted", iter([False, False, False, True]))
    layer(X)
    layer(X)
    assert served == ["cpp", "reference"]


def test_switches_and_verdicts_of_a_checkpoint_are_obeyed(served, served_by_cpp, monkeypatch):
    LSTM(X)
    monkeypatch.setenv("SEQNETS_MEASURE", "0")
    LSTM(X)
    monkeypatch.delenv("SEQNETS_MEASURE")
    LSTM(X)
    (one,) = [one for one in autoselect.verdicts() if one["differentiated"]]
    autoselect.adopt([one | {"times": [1.0, 3.0, 0.3, True, None]}])
    LSTM(X)
    assert served == ["cpp", "aten", "cpp", "aten"]


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(dispatch, "MOST", 5)
    for T in range(1, 20):
        GRU(X[:T])
    assert 0 < len(dispatch._chosen) <= 5


# ---- what a call costs


def count(call):
    """Return the calls of Python functions of the project in a call, and how often the next one is in another file."""
    root, files = str(Path(seqnets.__file__).resolve().parents[1]), []

    def note(frame, event, _):
        file = frame.f_code.co_filename
        if event == "call" and str(Path(file).resolve()).startswith(root) and not file.startswith("<"):
            files.append(file)

    for _ in range(4):
        call()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return len(files), sum(a != b for a, b in itertools.pairwise(files)), Counter(files)


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_a_warm_call_takes_few_python_calls(grad, served_by_cpp):
    x, found = torch.randn(64, 32, 32), {}
    for layers in (1, 2, 4):
        layer = seqnets.LSTM(32, 64, layers)
        with torch.set_grad_enabled(grad):
            assert seqnets.explain(layer, x).backend == "cpp"
            found[layers] = count(lambda layer=layer: layer(x))
    calls, moves, files = found[1]
    assert calls <= 130 and moves <= 40, files
    assert found[4][0] - found[2][0] <= 2 * 40 and found[4][1] - found[2][1] <= 2 * 10, found[4][2]


def test_a_step_takes_few_python_calls():
    layer, x = seqnets.LSTM(32, 64), torch.randn(4, 32)
    with torch.no_grad():
        calls, _, files = count(lambda: layer.step(x))
    assert calls <= 40, files


@pytest.fixture
def served_by_cpp(monkeypatch):
    monkeypatch.setattr(autoselect, "_read_or_measure", lambda shape: autoselect.Times(3.0, 1.0, 3.0))
