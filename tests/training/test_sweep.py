"""What a sweep reports of its jobs."""

import csv
import json

import pytest
from matplotlib.image import imread

from seqnets.analysis.comparison import Bars
from seqnets.analysis.memory import SolvedLengths
from seqnets.training.sweep import by_seed, read_jobs, report_sweep


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
        given.append((["+experiment=some", f"model/cell={cell}", f"seed={seed}", "data.length=50"], folder))
    return given


def test_jobs_are_named_by_what_distinguishes_them(jobs):
    read = read_jobs(jobs)
    assert [job.name for job in read[:2]] == ["model/cell=gru seed=0", "model/cell=gru seed=1"]
    assert {name: len(group) for name, group in by_seed(read).items()} == {"model/cell=gru": 2, "model/cell=lstm": 2}
    assert read[0].figures() == {"test/loss": 0.2, "parameters": 1234, "s/epoch": 2.0}
    (alone,) = read_jobs(jobs[:1])
    assert alone.overrides["data.length"] == "50"


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


def test_pictures_are_drawn_of_what_finished(jobs, tmp_path):
    read = read_jobs(
        [([*overrides[:-1], f"data.length={50 + number}"], folder) for number, (overrides, folder) in enumerate(jobs)]
    )
    Bars()(tmp_path, read)
    SolvedLengths()(tmp_path, read)
    for name in ("sweep.png", "solved.png"):
        assert imread(tmp_path / name).std() > 0.01
    (tmp_path / "none").mkdir()
    Bars()(tmp_path / "none", read[-1:])
    SolvedLengths()(tmp_path / "none", read[-1:])
    assert not list((tmp_path / "none").iterdir())
