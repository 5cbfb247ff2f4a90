"""Runs, in small: what goes wrong with one contender or case is told in its row, and the rest goes on."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import runner
from benchmarks.__main__ import _command, commands
from benchmarks.cases import LayerCase
from benchmarks.contenders import Settings
from benchmarks.problem import Oracle, make_arrays
from benchmarks.results import read_results
from benchmarks.runner import run
from benchmarks.worker_pool import Gone, Worker
from seqnets.errors import RunFolderError
from tests.benchmarks.runs import CONF, config_of

TINY = {"T": 3, "B": 2, "I": 3, "H": 4}


def rows(results):
    """Status of each contender, case by case."""
    return [{name: r["status"] for name, r in m["results"].items()} for m in results["measurements"]]


@pytest.fixture(autouse=True)
def _ceilings(monkeypatch):
    """Not measured by every test."""
    monkeypatch.setattr(
        runner, "rates", lambda settings: {"gflops": 100.0, "gbytes_per_second": 10.0, "source": "made up"}
    )


class TestRun:
    def test_contenders_that_go_wrong_are_told_and_the_rest_goes_on(self, tmp_path, capsys):
        peers = [f"tests.benchmarks.peers.{name}" for name in ("wrong", "crashes", "greedy", "late", "odd", "absent")]
        wrong, crashes, greedy, late, odd, absent = peers
        config = config_of(
            ["torch.nn", *peers, "seqnets-reference"],
            layer=[
                TINY | {"H": 0},
                TINY | {"mode": "infer", "cell": ["lstm", "no_such_cell", "benchmarks.cells:light"]},
            ],
        )
        results = run(config, tmp_path)
        assert read_results(tmp_path) == json.loads(json.dumps(results)) and results["status"] == "finished"
        assert "No module named 'a_library_that_nobody_has'" in results["contenders"][absent]["absent"]
        bad, good, unknown, own = results["measurements"]
        assert bad["refused"] == "H must be a positive integer, not 0"
        assert "no_such_cell" in unknown["refused"]
        status = {name: r["status"] for name, r in good["results"].items()}
        assert status["torch.nn"] == status["seqnets-reference"] == "measured"
        assert (status[wrong], status[crashes], status[greedy]) == ("wrong", "failed", "out of memory")
        why = {name: r.get("why") for name, r in good["results"].items()}
        assert status[late] == "out of memory" and "seconds" not in good["results"][late]
        assert why[odd].startswith("what it gave cannot be judged: ")
        assert "y is 0.001 from its value in float64" in why[wrong]
        assert why[crashes] == "its process died (SIGSEGV); its last words: last words"
        assert own["results"]["torch.nn"] == {"status": "not served", "why": "torch.nn has no such cell"}
        told = capsys.readouterr().out
        for sentence in ("SIGSEGV", "H must be a positive integer", "torch.nn has no such cell"):
            assert sentence in told
        assert (tmp_path / "results.csv").exists()

    def test_a_run_that_was_interrupted_goes_on(self, tmp_path, monkeypatch):
        config = config_of(["seqnets-reference", "torch.nn"], layer=[TINY | {"mode": "infer", "H": [4, 5, 6]}])
        measure, asked = runner.measure, []

        def interrupted(case, *rest):
            asked.append(case.H)
            if len(asked) == 2:
                raise KeyboardInterrupt
            return measure(case, *rest)

        monkeypatch.setattr(runner, "measure", interrupted)
        first = run(config, tmp_path)
        assert first["status"] == "interrupted" and len(first["measurements"]) == 1
        with pytest.raises(RunFolderError, match=f"resume {tmp_path}"):
            run(config, tmp_path)
        again = run(read_results(tmp_path)["config"], tmp_path, go_on=True)
        assert again["status"] == "finished" and asked == [4, 5, 5, 6]
        assert again["measurements"][0] == first["measurements"][0]
        assert [m["case"]["H"] for m in again["measurements"]] == [4, 5, 6]

    def test_a_run_of_another_machine_does_not_go_on(self, tmp_path):
        config = config_of(["seqnets-reference"], layer=[TINY])
        results = run(config, tmp_path)
        results["environment"]["cpu"], results["status"] = "another", "interrupted"
        (tmp_path / "results.json").write_text(json.dumps(results))
        with pytest.raises(RunFolderError, match="cpu was another"):
            run(config, tmp_path, go_on=True)

    def test_every_suite_measures(self, tmp_path):
        config = config_of(
            ["seqnets-reference", "torch.nn"],
            latency=[{"mode": "step", "I": 3, "H": 4}],
            memory=[TINY | {"mode": "train", "T": 300, "B": 8, "H": 64}],
            kernels=[{"arch": "sm_90", "H": 16, "contenders": ["seqnets-reference"]}],
        )
        latency, memory, kernel = run(config, tmp_path)["measurements"]
        assert all(len(r["seconds"]) >= 3 for r in latency["results"].values())
        if sys.platform == "linux":
            assert all(r["saved_bytes"] > 300 * 8 * 64 * 4 for r in memory["results"].values())
            assert all(min(r["peak_bytes"]) > 300 * 8 * 4 * 64 * 4 for r in memory["results"].values())
        (row,) = kernel["results"].values()
        assert (row["status"] == "measured" and row["kernel"]["registers"] > 0) or row["status"] == "not served"

    def test_an_experiment_is_trained_step_by_step(self, tmp_path, reviews):
        overrides = [f"data.path={reviews}", "data.vocab_size=50", "data.max_tokens=8", "data.batch_size=4"]
        overrides += ["model.net.recurrent.hidden_size=4", f"data.cache_dir={tmp_path}"]
        config = config_of(
            ["seqnets-reference", "torch.nn"],
            train=[
                {"experiment": "imdb_bilstm", "steps": [2, 3], "turns": 3, "overrides": overrides},
                {"experiment": "no_such"},
            ],
        )
        found, again, refused = run(config, tmp_path / "run")["measurements"]
        for steps, result in [(2, r) for r in found["results"].values()] + [(3, r) for r in again["results"].values()]:
            assert result["status"] == "measured", result
            assert len(result["seconds"]) == 3 and result["calls"] == steps and result["peak_bytes"][0] > 1e8
        assert found["results"]["seqnets-reference"]["notes"]["backend"] == "reference"
        assert "no_such cannot be had" in refused["refused"]

    def test_from_the_command_line(self, tmp_path, capsys):
        def command(*arguments):
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks", *map(str, arguments)],
                capture_output=True,
                text=True,
                cwd=CONF.parent,
            )
            return done.returncode, done.stdout, done.stderr

        def here(*arguments):
            """The same for what is not Hydra's, in this process."""
            capsys.readouterr()
            try:
                code = _command(commands().parse_args([*map(str, arguments)]))
            except SystemExit as end:
                code = end.code
            return code, *capsys.readouterr()

        grid = "{mode: infer, T: 3, B: 2, I: 3, H: [4, 8]}"
        small = [
            "preset=quick",
            "only=[layer]",
            f"suites.layer=[{grid}]",
            "contenders=[seqnets,torch.nn]",
            "seconds=0.01",
        ]
        code, out, err = command(*small, f"hydra.run.dir={tmp_path / 'a'}")
        assert code == 0, err
        assert "geometric mean (least-most; cases)" in out and "results.json" in out
        for name in ("results.json", "results.csv", "time_against_H.png"):
            assert (tmp_path / "a" / name).exists()
        code, out, _ = here("compare", tmp_path / "a", tmp_path / "a")
        assert code == 0 and "0 slower" in out
        code, out, _ = here("show", tmp_path / "a", "--markdown")
        assert code == 0 and "| case | " in out
        code, _, err = command(*small, "contenders=[torch.nm]", f"hydra.run.dir={tmp_path / 'b'}")
        assert code == 1 and "there is no 'torch.nm'; did you mean torch.nn?" in err and "Traceback" not in err
        assert not (tmp_path / "b").exists()
        code, _, _ = here("compare", tmp_path / "nowhere", tmp_path / "a")
        assert "cannot be read" in code  # with such a message the process ends with status 1


def test_a_contender_that_takes_too_long_is_given_up_and_started_anew(tmp_path):
    name = "tests.benchmarks.peers.slow"
    worker = Worker(Settings(name, "cpu", 1, "ieee", str(tmp_path), 0), sys.executable, tmp_path / "log")
    case = LayerCase("layer", **TINY).to_dict()
    try:
        assert worker.ask("hello", 60)["versions"] == {"slow": "1"}
        with pytest.raises(Gone, match="gave up after 0.1 s: prepare took longer"):
            worker.ask("prepare", 0.1, case=case, arrays=None)
        assert worker.ask("hello", 60)["versions"] == {"slow": "1"}
    finally:
        worker.stop()


def test_the_gate_sees_what_is_wrong_and_lets_rounding_pass():
    case = LayerCase("layer", mode="train", T=5, B=3, I=4, H=6)
    oracle = Oracle(case, make_arrays(case, 0), "cpu", "ieee")
    right = {name: value.float().numpy() for name, value in oracle.exact.items()}
    assert oracle.worst(right).ratio <= 1
    for name in right:
        off = {n: v.copy() for n, v in right.items()}
        off[name].flat[0] += 1e-3 * np.abs(off[name]).max()
        assert oracle.worst(off).ratio > 1 and oracle.worst(off).what == name
        off[name].flat[0] = np.nan
        assert oracle.worst(off).ratio > 1
    assert oracle.worst({"y": right["y"]}) == "it gave no d_x"
    assert "its y is (5, 3), not (5, 3, 6)" in oracle.worst(right | {"y": right["y"][..., 0]})


def test_ragged_cases_have_lengths_and_no_case_depends_on_another():
    case = LayerCase("layer", mode="infer", T=8, B=5, I=4, H=6, ragged=True)
    first, again, other = make_arrays(case, 0), make_arrays(case, 0), make_arrays(case, 1)
    assert first["lengths"].min() >= 2 and first["lengths"].max() == 8
    assert all(np.array_equal(first[n], again[n]) for n in first) and not np.array_equal(first["x"], other["x"])
