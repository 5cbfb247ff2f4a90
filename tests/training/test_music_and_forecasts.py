"""Runs on chorales and on a series: resumed ones end as whole ones do, and leave what is promised in their folders."""

import json

import mido
import pytest
import torch

import predict
from seqnets.errors import ConfigError, RunFolderError
from seqnets.training import evaluate, train
from tests.data.synthetic import chorales
from tests.training.helpers import assert_same, compose, ended_by

SMALL = {
    "jsb_chorales": ["model.net.recurrent.hidden_size=5", "data.batch_size=3"],
    "sunspots_forecast": ["model.net.recurrent.hidden_size=5", "model.net.dropout=0.5", "data.batch_size=20"],
}


@pytest.fixture(params=SMALL)
def run(request, tmp_path, monkeypatch):
    """Starts a run of an experiment, two epochs of 7 or 9 steps, in a folder of that name."""
    path = chorales(tmp_path / "data", monkeypatch) if request.param == "jsb_chorales" else "null"

    def start(name, *overrides):
        common = [f"data.path={path}", "trainer.accelerator=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=1"]
        where = [f"+experiment={request.param}", f"run_dir={tmp_path / name}"]
        return train(compose(*where, *common, *SMALL[request.param], *overrides))

    start.experiment = request.param
    return start


def figures(metrics):
    return {name: value for name, value in metrics.items() if "/" in name}  # without times


@pytest.mark.parametrize("step", [5, 12])
def test_a_run_resumed_in_mid_epoch_equals_an_uninterrupted_one(step, run, tmp_path):
    every = "callbacks.last_checkpoint.every_n_train_steps=2"
    whole, _ = run("whole", every)
    with pytest.raises(RuntimeError, match="on purpose"):
        run("ended", every, *ended_by("Fail", step))
    torch.manual_seed(99)
    resumed, _ = run("resumed", every, f"ckpt_path={tmp_path / 'ended' / 'checkpoints' / 'last.ckpt'}")
    assert_same(tmp_path / "whole", tmp_path / "resumed")
    assert figures(resumed) == figures(whole)
    names = {"jsb_chorales": ["sample.mid", "piano_roll.png"], "sunspots_forecast": ["forecast.png"]}[run.experiment]
    for name in names:  # of the same weights
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()


@pytest.mark.parametrize("run", ["jsb_chorales"], indirect=True)
def test_a_sample_is_checked_before_the_run_and_overwrites_nothing(run, tmp_path):
    for wrong in ("length=0", "temperature=-1"):
        with pytest.raises(ConfigError, match=wrong.split("=")[0]):
            run("run", f"callbacks.piano_roll.{wrong}")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "sample.mid").write_text("mine")
    with pytest.raises(RunFolderError, match=r"sample\.mid"):
        run("run", "trainer.max_epochs=1")
    assert (tmp_path / "run" / "sample.mid").read_text() == "mine"


@pytest.mark.parametrize("run", ["jsb_chorales"], indirect=True)
def test_a_model_that_reads_what_it_predicts_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="bidirectional"):
        run("run", "model.net.recurrent.bidirectional=true")
    assert not (tmp_path / "run").exists()


def test_a_run_may_be_in_another_precision(run):  # and test_gradients.py has one
    metrics, objects = run("run", "trainer.precision=64-true")
    assert next(objects["task"].parameters()).dtype == torch.float64
    assert metrics["test/loss"] > 0


def test_evaluate_repeats_the_figures_of_the_best(run, tmp_path):
    metrics, objects = run("run")
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert objects["result"]["tested"] == str(best)
    again = evaluate(compose(f"ckpt_path={best}", "trainer.accelerator=cpu", name="evaluate"))
    assert again == {name: value for name, value in metrics.items() if name.startswith("test/")}


def test_predict_composes_or_forecasts(run, tmp_path, capsys):
    _, objects = run("run")
    last = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    given = str(tmp_path / "new.mid") if run.experiment == "jsb_chorales" else objects["data"].encoder.usage.strip('"')
    capsys.readouterr()
    predict.main([last, given, "--length", "7", "--json"])
    fields = json.loads(capsys.readouterr().out)
    if run.experiment == "jsb_chorales":
        assert mido.MidiFile(given).length == pytest.approx(7 * 60 / 80, rel=1e-4)
        assert fields["steps"] == 7
        with pytest.raises(SystemExit):
            predict.main([last, given])
        assert "exists and is not overwritten" in capsys.readouterr().err
    else:
        assert len(fields["forecast"]) == 7
        with pytest.raises(SystemExit):
            predict.main([last, "1 2 3"])
        assert "looks back 22 steps" in capsys.readouterr().err
