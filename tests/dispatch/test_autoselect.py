"""Which of torch's operations and the compiled kernels ``auto`` takes on the CPU: the faster one, as measured."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import seqnets
from seqnets.backends import aten, autoselect, cpp
from seqnets.kernels.load import Load
from tests.cells import zoo

X = torch.randn(20, 40, 30)


@pytest.fixture(autouse=True)
def measuring(monkeypatch, tmp_path):
    monkeypatch.delenv("SEQNETS_MEASURE")
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))
    monkeypatch.setattr("seqnets.kernels.cpp.first_use.why_disagrees", lambda *which: None)
    clear = autoselect.measured.known.clear
    clear()
    yield tmp_path
    clear()


@pytest.fixture
def times(monkeypatch):
    """What a measurement will find; and the shapes that were measured."""
    shapes = []

    def find(theirs, ours):
        def measure(shape):
            shapes.append(shape)
            return autoselect.Times(theirs, ours, theirs / ours)

        monkeypatch.setattr(autoselect, "_measure", measure)
        return shapes

    return find


@pytest.mark.parametrize(("theirs", "ours", "winner"), [(3.0, 1.5, "cpp"), (1.5, 3.0, "aten"), (2.0, 2.02, "cpp")])
def test_auto_takes_the_faster_one_and_says_why(theirs, ours, winner, times):
    times(theirs, ours)
    explained = seqnets.explain(seqnets.GRU(30, 20), X)
    loser = {"cpp": "aten", "aten": "cpp"}[winner]
    assert explained.backend == winner
    assert explained.reasons[winner] is None
    why = f"{theirs:.3g} ms by aten and {ours:.3g} ms by cpp, measured on this machine at T=128, B=64"
    assert explained.reasons[loser] == why


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts threads as Linux tells them")
def test_the_callers_threads_do_not_count_while_another_thread_measures(monkeypatch):
    def threads():
        return int(re.search(r"Threads:\s*(\d+)", Path("/proc/self/status").read_text())[1])

    seen = []
    monkeypatch.setattr(autoselect, "_measure", lambda shape: seen.append(threads()) or autoselect.Times(1.0, 1.0, 1.0))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        torch.randn(1000, 1000).exp()
        kept = threads()
        seqnets.explain(seqnets.GRU(30, 20), X)
    finally:
        torch.set_num_threads(before)
    assert seen == [kept - 3 + 1]  # without three that OpenMP kept, and with the one that measures


def test_a_backend_asked_for_is_not_measured(times):
    shapes = times(1.0, 9.0)
    for backend in ("aten", "cpp"):
        assert seqnets.explain(seqnets.LSTM(30, 20, backend=backend), X).backend == backend
    assert not shapes


def test_what_was_measured_is_kept_for_the_process_and_on_disk(times, measuring):
    shapes, layer = times(3.0, 1.0), seqnets.LSTM(30, 20)
    for _ in range(2):
        assert seqnets.explain(layer, X).backend == "cpp"
        assert seqnets.explain(layer, X[:19, :37]).backend == "cpp"  # as good as the same
    assert len(shapes) == 1
    (path,) = measuring.glob("kernels/autoselect-*.json")
    assert json.loads(path.read_text())["value"] == {
        "aten": 3.0,
        "cpp": 1.0,
        "ratio": 3.0,
        "clear": True,
        "short": None,
    }
    autoselect.measured.known.clear()
    assert seqnets.explain(layer, X).backend == "cpp"
    assert len(shapes) == 1


def test_a_verdict_that_is_not_clear_is_for_the_process_alone(monkeypatch, measuring):
    shapes = []
    monkeypatch.setattr(
        autoselect, "_measure", lambda shape: shapes.append(shape) or autoselect.Times(3.0, 1.0, 3.0, False)
    )
    for _ in range(2):
        assert seqnets.explain(seqnets.LSTM(30, 20), X).backend == "cpp"
    assert len(shapes) == 1
    assert not list(measuring.glob("kernels/autoselect-*.json"))


@pytest.mark.parametrize(
    ("T", "winner"), [(9, "aten"), (32, "aten"), (60, "aten"), (128, "cpp"), (200, "cpp"), (20_000, "cpp")]
)
@torch.no_grad()
def test_times_of_other_lengths_lie_on_a_line(T, winner, monkeypatch):
    """One backend has the smaller constant part, the other the smaller time per step:
    0.2 + T / 64 and 1 + T / 128 ms.
    """
    times = autoselect.Times(aten=2.2, cpp=2.0, ratio=1.1, short=(0.7, 1.25))
    monkeypatch.setattr(autoselect, "_measure", lambda shape: times)
    explained = seqnets.explain(seqnets.LSTM(30, 20), torch.randn(1, 40, 30).expand(T, -1, -1))
    assert explained.backend == winner
    loser = explained.reasons["aten" if winner == "cpp" else "cpp"]
    assert f"{0.2 + T / 64:.3g} ms by aten and {1 + T / 128:.3g} ms by cpp" in loser
    assert "measured on this machine at T=128, B=64" in loser and (T == 128 or f"for T={T}, " in loser)


def test_noise_makes_no_time_negative():
    shape = autoselect.Shape("lstm", torch.float32, 128, 3, 5, 6, 1, 1, True, False, True, True, 1)
    times = autoselect.Times(aten=1.0, cpp=3.0, ratio=1 / 3, short=(2.0, 0.1))
    assert times.at(shape, 9).cpp > 0 and times.at(shape, 9).aten == 1.0
    assert autoselect.Times(0, 0, 0).at(shape, 9).ratio == 0


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_a_busy_machine_measured_is_for_the_process_alone(share, monkeypatch, measuring):
    monkeypatch.setattr(autoselect, "SECONDS", 0.01)
    monkeypatch.setattr(autoselect, "time_on_cpu", lambda competitors, seconds: {aten: [3.0] * 4, cpp: [1.0] * 4})
    monkeypatch.setattr(autoselect.Load, "of_others", lambda self: share)
    assert seqnets.explain(seqnets.LSTM(30, 20), X).backend == "cpp"
    assert bool(list(measuring.glob("kernels/autoselect-*.json"))) == (share < autoselect.BUSY)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux alone tells")
def test_others_are_told_from_this_process():
    def spin(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    own = Load()
    spin(0.5)
    quiet = own.of_others()
    both = Load()
    other = subprocess.Popen(
        [sys.executable, "-c", "import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end: pass"]
    )
    time.sleep(1.5)
    busy = both.of_others()
    other.kill()
    other.wait()
    assert 0 <= quiet <= 1 and busy > 0.5 / os.cpu_count()


def test_verdicts_travel(times):
    shapes, layer = times(3.0, 1.0), seqnets.LSTM(30, 20)
    assert seqnets.explain(layer, X).backend == "cpp"
    carried = json.loads(json.dumps(autoselect.verdicts()))
    autoselect.measured.known.clear()
    for path in Path(os.environ["SEQNETS_CACHE"]).glob("kernels/autoselect-*.json"):
        path.unlink()
    times(1.0, 3.0)
    autoselect.adopt(carried)
    assert seqnets.explain(layer, X).backend == "cpp" and len(shapes) == 1


@pytest.mark.parametrize(
    "found", [None, [{}], [{"dtype": 3}], "text", [{"dtype": "torch.float32", "times": 1}]], ids=str
)
def test_verdicts_that_cannot_be_read_are_left_out(found, caplog):
    autoselect.adopt(found)
    assert "it is made anew" in caplog.text and not autoselect.measured.known


@pytest.mark.parametrize("short", [[], [1.0], [1.0, 2.0, 3.0], 1.0, [None, 1.0]], ids=str)
def test_a_damaged_verdict_hides_no_other(short, times, caplog):
    times(3.0, 1.0)
    seqnets.explain(seqnets.LSTM(30, 20), X)
    (whole,) = json.loads(json.dumps(autoselect.verdicts()))
    damaged = {**whole, "H": 21, "times": [*whole["times"][:-1], short]}
    autoselect.measured.known.clear()
    autoselect.adopt([damaged, whole])
    assert "it is made anew" in caplog.text
    assert [shape.H for (shape,) in autoselect.measured.known] == [20]


@pytest.mark.parametrize("short", [[], [1.0], 1.0], ids=str)
def test_a_damaged_file_is_measured_anew(short, times, measuring, caplog):
    shapes, layer = times(3.0, 1.0), seqnets.LSTM(30, 20)
    seqnets.explain(layer, X)
    (path,) = measuring.glob("kernels/autoselect-*.json")
    kept = json.loads(path.read_text())
    kept["value"]["short"] = short
    path.write_text(json.dumps(kept))
    autoselect.measured.known.clear()
    assert seqnets.explain(layer, X).backend == "cpp" and len(shapes) == 2
    assert "it is found out again" in caplog.text


@torch.no_grad()
def test_shapes_that_differ_in_what_takes_time_are_measured_apart(times):
    shapes, layer = times(3.0, 1.0), seqnets.LSTM(30, 20)
    calls = [
        lambda: layer(X), lambda: layer(X[:, :20]), lambda: layer(X[:7]),
        lambda: layer(X, lengths=torch.full((40,), 5)), lambda: seqnets.LSTM(30, 20, bidirectional=True)(X),
        lambda: seqnets.LSTM(30, 20, 2)(X), lambda: seqnets.GRU(30, 20)(X), lambda: seqnets.LSTM(30, 20, bias=False)(X),
        torch.enable_grad()(lambda: layer(X)), torch.enable_grad()(lambda: layer(X.clone().requires_grad_())),
        lambda: layer.double()(X.double()),
    ]  # fmt: skip
    for number, call in enumerate(calls, 1):
        call()
        assert len(set(shapes)) == len(shapes) == number


@pytest.mark.parametrize(
    "changed",
    [{}, {"cell": "gru"}, {"differentiated": False}, {"ragged": True, "directions": 2, "layers": 2}, {"bias": False},
     {"dtype": torch.bfloat16}, {"input_differentiated": False}, {"dtype": torch.float64}],
    ids=str,
)  # fmt: skip
def test_a_measurement_runs_both(changed, monkeypatch):
    monkeypatch.setattr(autoselect, "SECONDS", 0.01)
    ran = []
    for backend in (aten, cpp):
        monkeypatch.setattr(backend, "run", lambda problem, run=backend.run, b=backend: ran.append(b) or run(problem))
    shape = autoselect.Shape("lstm", torch.float32, 4, 3, 5, 6, 1, 1, True, False, True, True, 1)._replace(**changed)
    cell = seqnets.CELLS[shape.cell]
    found = autoselect._measure(shape._replace(cell=cell.key))
    assert found.aten > 0 and found.cpp > 0 and found.ratio > 0
    assert set(ran) == {aten, cpp}


def test_measuring_draws_nothing_and_needs_no_gradient_of_the_callers():
    layer, state = seqnets.LSTM(30, 20), torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert seqnets.explain(layer, X).backend in ("aten", "cpp")
    assert torch.equal(torch.get_rng_state(), state)


def test_little_work_is_not_measured(monkeypatch):
    monkeypatch.setattr(autoselect, "measured", lambda shape: pytest.fail("it was measured"))
    explained = seqnets.explain(seqnets.LSTM(3, 4), torch.randn(5, 2, 3))
    assert explained.backend == "aten"
    assert "too little to measure" in explained.reasons["cpp"]


def test_much_work_is_measured_in_part():
    layer = seqnets.LSTM(512, 1024, 2, device="meta")
    problem = layer._problem(torch.empty(1000, 4096, 512, device="meta"), None, None, None)
    shape = autoselect.shape_of(problem)
    assert (shape.T, shape.B, shape.H, shape.layers) == (2, 16, 1024, 2)
    assert shape.T * shape.B * autoselect._work(problem) <= autoselect.MUCH


def test_measuring_can_be_forbidden(monkeypatch):
    monkeypatch.setattr(autoselect, "measured", lambda shape: pytest.fail("it was measured"))
    monkeypatch.setenv("SEQNETS_MEASURE", "0")
    explained = seqnets.explain(seqnets.LSTM(30, 20), X)
    assert explained.backend == "aten"
    assert "SEQNETS_MEASURE=0 forbids" in explained.reasons["cpp"]


def test_where_one_cannot_serve_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(autoselect, "measured", lambda shape: pytest.fail("it was measured"))
    assert seqnets.explain(seqnets.LSTM(30, 20), X, return_all_states=True).backend == "cpp"
    assert seqnets.explain(zoo.layer("peephole_lstm", 30, 20), X).backend == "cpp"
    monkeypatch.setattr(cpp, "why_not", lambda problem: "there is no compiler")
    explained = seqnets.explain(seqnets.LSTM(30, 20), X)
    assert explained.backend == "aten" and explained.reasons["cpp"] == "there is no compiler"


def test_a_folder_that_cannot_be_written_costs_a_measurement_per_process(times, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "file"))
    shapes = times(3.0, 1.0)
    for _ in range(2):
        assert seqnets.explain(seqnets.LSTM(30, 20), X).backend == "cpp"
    assert len(shapes) == 1


def test_times_do_not_decide_for_deterministic_algorithms(monkeypatch):
    monkeypatch.setattr(autoselect, "measured", lambda shape: pytest.fail("it was measured"))
    torch.use_deterministic_algorithms(True)
    try:
        assert seqnets.explain(seqnets.LSTM(30, 20), X).backend == "aten"
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings("ignore")
def test_traced_graphs_are_measured_no_more_than_compiled_ones(monkeypatch):
    from torch.fx.experimental.proxy_tensor import make_fx

    monkeypatch.setattr(autoselect, "measured", lambda shape: pytest.fail("it was measured"))
    layer = seqnets.GRU(30, 20).eval()
    expected = seqnets.use_backend("aten")(layer)(X)[0]
    assert torch.equal(torch.jit.trace(layer, (X,), check_trace=False)(X)[0], expected)
    with torch.no_grad():
        graph = make_fx(lambda x: layer(x)[0], tracing_mode="symbolic", _allow_non_fake_inputs=True)(X)
    torch.testing.assert_close(graph(X), expected)
    own = zoo.layer("peephole_lstm", 30, 20)
    torch.testing.assert_close(torch.jit.trace(own, (X,), check_trace=False)(X + 1)[0], own(X + 1)[0])


@pytest.mark.parametrize("value", [{}, [1], "text", {"aten": "x", "cpp": 1, "ratio": 1}, None], ids=str)
def test_a_damaged_file_is_measured_again(value, times, measuring):
    times(3.0, 1.0)
    layer = seqnets.LSTM(30, 20)
    assert seqnets.explain(layer, X).backend == "cpp"
    (path,) = measuring.glob("kernels/autoselect-*.json")
    path.write_text(json.dumps({"value": value}))
    autoselect.measured.known.clear()
    assert seqnets.explain(layer, X).backend == "cpp"
    assert json.loads(path.read_text())["value"]["cpp"] == 1.0


def test_a_measurement_that_fails_is_no_reason_to_fail(monkeypatch, caplog, measuring):
    def fail(shape):
        raise MemoryError("not for this")

    monkeypatch.setattr(autoselect, "_measure", fail)
    explained = seqnets.explain(seqnets.LSTM(30, 20), X)
    assert explained.backend == "aten"
    assert "measuring which is faster failed" in explained.reasons["cpp"]
    assert "MemoryError: not for this" in caplog.text
    assert not list(measuring.glob("kernels/autoselect-*.json"))


def test_compiled_graphs_take_one_operator_and_exported_ones_torchs(monkeypatch):
    monkeypatch.setattr(autoselect, "measured", lambda shape: pytest.fail("it was measured"))
    layer, seen = seqnets.LSTM(30, 20), []

    def look(graph, inputs):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch._dynamo.reset()
    y = torch.compile(layer, fullgraph=True, backend=look)(X)[0]
    assert any("seqnets.layer" in target for target in seen)
    torch.testing.assert_close(y, seqnets.use_backend("aten")(layer)(X)[0])
    for strict in (False, True):
        program = torch.export.export(layer.eval(), (X,), strict=strict)
        assert not any("seqnets" in str(node.target) for node in program.graph.nodes)
        torch.testing.assert_close(program.module()(X)[0], y)
    torch._dynamo.reset()
    seen.clear()
    torch.compile(layer, fullgraph=True, backend=look)(X)  # compiled after an export too
    assert any("seqnets.layer" in target for target in seen)


@pytest.mark.parametrize(("n", "up"), [(0, 1), (1, 1), (2, 2), (3, 4), (5, 8), (33, 64), (64, 64)])
def test_sizes_are_rounded_up(n, up):
    assert autoselect._rounded_up(n) == up
