"""What a sweep reports of its jobs."""

import csv
import json

import pandas as pd
import pytest
from matplotlib.image import imread

from seqnets.analysis.comparison import Bars
from seqnets.analysis.jobs import by_seed, read_jobs
from seqnets.analysis.memory import SolvedLengths
from seqnets.training.sweep import report_sweep
from seqnets.training.sweep_folder import locked
from tests.training.helpers import script


@pytest.fixture
def jobs(tmp_path):
    """Two cells with two seeds each, and a third that failed."""
    given = []
    for number, (cell, seed, loss) in enumerate(
        [("gru", 0, 0.2), ("gru", 1, 0.4), ("lstm", 0, 0.01), ("lstm", 1, 0.03), ("rnn", 0, None)]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = {
            "status": "finished", "metrics": {"test/loss": loss, "val/loss": 9.0}, "parameters": 1234,
            "seconds_per_epoch": [1.0, 3.0], "data": {"guess": 1.0},
        }  # fmt: skip
        (folder / "result.json").write_text(json.dumps(result if loss else {"status": "failed"}))
        (folder / "config.yaml").write_text(f"data:\n  length: {50 + number % 2}\nmodel:\n  cell:\n    name: {cell}\n")
        given.append((["+experiment=some", f"model/cell={cell}", f"seed={seed}", "~callbacks.some"], folder, True))
    return given


def test_jobs_are_named_by_what_distinguishes_them(jobs):
    read = read_jobs(jobs)
    assert [job.name for job in read[:2]] == ["model/cell=gru seed=0", "model/cell=gru seed=1"]
    assert {name: len(group) for name, group in by_seed(read).items()} == {"model/cell=gru": 2, "model/cell=lstm": 2}
    assert read[0].metrics() == {"test/loss": 0.2, "parameters": 1234, "s/epoch": 2.0}
    assert read[1].setting("data.length") == 51
    (alone,) = read_jobs(jobs[:1])
    assert alone.name == "as all"
    (refused,) = read_jobs([(*jobs[0][:2], False)])  # what lies in its folder is another's
    assert not refused.finished and not refused.result


def test_means_and_spreads_are_over_seeds(jobs, tmp_path, capsys):
    report_sweep(tmp_path, read_jobs(jobs))
    out = capsys.readouterr().out
    assert "means over seeds" in out
    assert "0.3000 (0.1414)" in out and "0.0200 (0.0141)" in out
    assert "model/cell=rnn seed=0: failed" in out
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["test/loss"] for row in rows] == ["0.2", "0.4", "0.01", "0.03", ""]
    assert [row["model/cell"] for row in rows] == ["gru", "gru", "lstm", "lstm", "rnn"]


def test_a_result_that_is_no_number_hides_no_other(jobs, tmp_path, capsys):
    result = json.loads((tmp_path / "0" / "result.json").read_text())
    result["metrics"]["test/loss"] = float("nan")
    (tmp_path / "0" / "result.json").write_text(json.dumps(result))
    report_sweep(tmp_path, read_jobs(jobs))
    out = capsys.readouterr().out
    assert "nan (nan)" in out and "0.0200 (0.0141)" in out
    assert (tmp_path / "sweep.csv").read_text().count("finished") == 4


def test_a_table_of_many_figures_cuts_no_name(jobs, tmp_path, capsys):
    names = [f"test/the_error_of_forecast_number_{k}" for k in range(12)]
    for number in range(2):
        file = tmp_path / str(number) / "result.json"
        result = json.loads(file.read_text())
        file.write_text(json.dumps(result | {"metrics": dict.fromkeys(names, 0.5)}))
    report_sweep(tmp_path, read_jobs(jobs[:2]))
    out = capsys.readouterr().out
    assert all(out.count(name) >= 2 for name in names)  # of jobs, and of their means


def test_pictures_are_drawn_of_what_finished(jobs, tmp_path):
    read = read_jobs(jobs)
    Bars()(tmp_path, read)
    SolvedLengths()(tmp_path, read)
    for name in ("sweep.png", "solved.png"):
        assert imread(tmp_path / name).std() > 0.01
    (tmp_path / "none").mkdir()
    Bars()(tmp_path / "none", read[-1:])
    SolvedLengths()(tmp_path / "none", read[-1:])
    assert not list((tmp_path / "none").iterdir())


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    """A function that runs a sweep of two jobs in the folder `all`, with more arguments,
    and returns its status and what it printed.
    """
    few = [
        "+experiment=gradient_flow", "data.length=5", "data.train_size=20", "data.validation_size=4",
        "data.test_size=4", "data.batch_size=10", "trainer.max_epochs=2", "trainer.accelerator=cpu",
        "model.net.recurrent.hidden_size=4", "model/cell=rnn_tanh,gru", "model.net.recurrent_gain=1.5",
        "trainer.gradient_clip_val=null",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    train_py = script("train.py", monkeypatch, capsys)

    def run(*arguments, into="hydra.sweep.dir=all"):
        status, out, err = train_py(*few, into, *arguments)
        return status, out + err

    return run


def test_a_sweep_of_an_experiment_goes_on_where_it_stopped(sweep, tmp_path):
    code, out = sweep()
    assert code == 0, out
    folder = tmp_path / "all"
    assert sorted(p.name for p in folder.iterdir()) == [
        ".lock",
        "0",
        "1",
        "gradient_flow.png",
        "multirun.yaml",
        "sweep.csv",
    ]
    before = (folder / "0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    (folder / "1" / "result.json").unlink()  # as a kill leaves it
    code, out = sweep()
    assert code == 0, out
    assert f"finished before: {folder / '0'}" in out
    assert (folder / "0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before
    assert (folder / "1.stopped-1" / "config.yaml").exists()
    result = json.loads((folder / "1" / "result.json").read_text())
    assert result["status"] == "finished" and result["resumed_from"].endswith("1.stopped-1/checkpoints/last.ckpt")
    assert (folder / "sweep.csv").read_text().count("finished") == 2
    norms = pd.read_csv(folder / "1" / "gradient_flow.csv")
    assert set(norms["when"]) == {"before training", "after training"}  # though only its test was left to do
    assert not (folder / "1" / "checkpoints" / "last.ckpt").exists()
    (folder / "1" / "result.json").unlink()  # stopped anew, before it had one
    code, out = sweep("~logger.csv")
    assert code == 1 and "holds another sweep" in out
    code, out = sweep()
    assert code == 0, out
    result = json.loads((folder / "1" / "result.json").read_text())
    assert result["status"] == "finished" and result["resumed_from"].endswith("1.stopped-1/checkpoints/last.ckpt")


def test_the_folder_of_a_sweep_is_of_that_sweep_and_of_one_process(sweep, tmp_path, monkeypatch):
    folder = tmp_path / "all"
    code, out = sweep("~logger.csv")  # whose losses the picture shows
    assert code == 1 and "the sweep could not be reported: FileNotFoundError" in out
    assert json.loads((folder / "1" / "result.json").read_text())["status"] == "finished"
    for full in ("", "1"):
        monkeypatch.setenv("HYDRA_FULL_ERROR", full)
        code, out = sweep("seed=3")
        assert code == 1
        assert "holds another sweep" in out and "to go on with that sweep" in out
    with locked(folder):
        code, out = sweep("~logger.csv")
        assert code == 1 and "another process is at work in" in out
    code, out = sweep(into="hydra.run.dir=one")
    assert code == 1 and "hydra.mode=RUN" in out
    assert not (tmp_path / "one").exists()
