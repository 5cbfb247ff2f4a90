"""A run that was ended and resumed ends with bitwise the weights of one that never was, with dropout active."""

import csv
import json
import math
import signal
import subprocess
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from seqnets.backends import autoselect
from seqnets.errors import CheckpointError, ConfigError, DataError
from seqnets.training import load_trained, train
from seqnets.training.checkpoints import BestCheckpoint
from tests.data.synthetic import parquet, parquet_folder
from tests.data.synthetic import reviews as made_reviews
from tests.training.helpers import assert_same, command, ended_by, figures, small_run

EVERY_3 = "callbacks.last_checkpoint.every_n_train_steps=3"
# what the run is, and the steps it goes through before it ends: 10 steps to an epoch where nothing else is said
WHOLE = {
    "mid-epoch": ([], 8),
    "in the second epoch": ([], 17),
    "at the first epoch's end": ([], 10),
    "with validation": (["data.validation_fraction=0.2"], 12),
    "with validation twice an epoch": (["data.validation_fraction=0.2", "trainer.val_check_interval=0.5"], 7),
    "with validation right after the save": (["data.validation_fraction=0.25", "trainer.val_check_interval=3"], 5),
    "accumulating": (["trainer.accumulate_grad_batches=2"], 4),
    "of a cell that is looped over": (["model/cell=gru", "model.backend=reference"], 8),
}


@pytest.mark.parametrize("case", WHOLE)
def test_resumed_run_equals_uninterrupted_one(case, reviews, whole_run, tmp_path):
    options, step = WHOLE[case]
    options = [*options, EVERY_3]
    whole_folder, whole = whole_run(*options)
    with pytest.raises(RuntimeError, match="on purpose"):
        train(small_run(reviews, tmp_path / "ended", *options, *ended_by("Fail", step)))
    torch.manual_seed(99)  # nothing of the resumed run may hang on the state this process happens to be in
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    resumed, _ = train(small_run(reviews, tmp_path / "resumed", *options, f"ckpt_path={last}"))
    assert_same(whole_folder, tmp_path / "resumed")
    assert figures(resumed) == figures(whole)  # means of the whole epoch
    assert json.loads((tmp_path / "ended" / "result.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("how", "step", "saved"), [pytest.param("Kill", 8, 6, marks=pytest.mark.faults), ("KillWhileWriting", 8, 6)]
)
def test_killed_process_resumes(how, step, saved, reviews, whole_run, tmp_path):
    started = command(reviews, tmp_path / "killed", EVERY_3, *ended_by(how, step))
    process = subprocess.run(started, capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    folder = tmp_path / "killed" / "checkpoints"
    assert (how == "KillWhileWriting") == (folder / ".last.ckpt.unfinished").exists()
    last = folder / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == saved
    assert not (tmp_path / "killed" / "result.json").exists()
    whole_folder, _ = whole_run(EVERY_3)
    train(small_run(reviews, tmp_path / "resumed", EVERY_3, f"ckpt_path={last}"))
    assert_same(whole_folder, tmp_path / "resumed")


class Plain(LightningDataModule):
    """Reviews through a plain shuffling DataLoader, which draws from the global random state."""

    labels = ("negative", "positive")

    def __init__(self, path, **_):
        super().__init__()
        from seqnets.data import IMDB

        self.inner = IMDB(path, vocab_size=40, max_tokens=8)

    def setup(self, stage=None):
        self.inner.setup(stage)
        self.encoder, self.provenance, self.example = self.inner.encoder, self.inner.provenance, self.inner.example

    def train_dataloader(self):
        return DataLoader(self.inner._splits["train"], 4, shuffle=True, collate_fn=lambda batch: batch)

    def val_dataloader(self):
        return DataLoader(self.inner._splits["test"], 4, collate_fn=lambda batch: batch)

    test_dataloader = val_dataloader


def test_loaders_that_draw_globally_resume_at_an_epochs_end(reviews, whole_run, tmp_path):
    plain = "data._target_=tests.training.test_resume.Plain"
    whole_folder, _ = whole_run(plain)
    with pytest.raises(RuntimeError, match="on purpose"):
        train(small_run(reviews, tmp_path / "ended", plain, *ended_by("Fail", 10)))
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    train(small_run(reviews, tmp_path / "resumed", plain, f"ckpt_path={last}"))
    assert_same(whole_folder, tmp_path / "resumed")


def test_metrics_of_a_resumed_run_go_on_where_they_were(reviews, tmp_path):
    def steps(folder):
        with (folder / "metrics.csv").open() as file:
            return [int(row["step"]) for row in csv.DictReader(file) if row["train/loss_step"]]

    with pytest.raises(RuntimeError, match="on purpose"):
        train(small_run(reviews, tmp_path / "ended", EVERY_3, *ended_by("Fail", 8)))
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    train(small_run(reviews, tmp_path / "resumed", EVERY_3, f"ckpt_path={last}"))
    assert steps(tmp_path / "ended") == list(range(8))
    assert steps(tmp_path / "resumed") == list(range(8, 20))
    result = json.loads((tmp_path / "resumed" / "result.json").read_text())
    assert result["resumed_from"] == str(last)
    assert len(result["seconds_per_epoch"]) == 1  # half an epoch's time is no epoch's time


@pytest.mark.parametrize("options", [[], ["trainer.accumulate_grad_batches=2"], ["data.validation_fraction=0.2"]])
def test_an_epoch_cut_by_max_steps_is_gone_on_with(options, reviews, tmp_path):
    whole, _ = train(small_run(reviews, tmp_path / "whole", *options))
    steps = json.loads((tmp_path / "whole" / "result.json").read_text())["steps"]
    cut, objects = train(small_run(reviews, tmp_path / "cut", *options, f"trainer.max_steps={steps - 2}"))
    assert len(objects["result"]["seconds_per_epoch"]) == 1
    with (tmp_path / "cut" / "metrics.csv").open() as file:
        losses = [
            float(r["train/loss_step"]) for r in csv.DictReader(file) if r["train/loss_step"] and r["epoch"] == "1"
        ]
    if not options:  # where one row is one batch
        assert cut["train/loss"] == pytest.approx(sum(losses) / len(losses))
    line = next(x for x in (tmp_path / "cut" / "train.log").read_text().splitlines() if "epoch 2/2" in x)
    assert f"train/loss {cut['train/loss']:.4f}" in line
    assert "val/" not in line
    assert line.endswith("(not to its end)")
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigError, match="raise trainer.max_steps"):
        train(small_run(reviews, tmp_path / "no", *options, f"ckpt_path={last}", f"trainer.max_steps={steps - 2}"))
    resumed, _ = train(small_run(reviews, tmp_path / "resumed", *options, f"ckpt_path={last}"))
    assert_same(tmp_path / "whole", tmp_path / "resumed")
    assert figures(resumed) == figures(whole)


def test_an_epoch_cut_by_a_callback_is_gone_on_with(reviews, whole_run, tmp_path):
    whole_folder, whole = whole_run()
    _, objects = train(small_run(reviews, tmp_path / "cut", *ended_by("Stop", 14)))
    assert objects["result"]["steps"] == 14
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    resumed, _ = train(small_run(reviews, tmp_path / "resumed", f"ckpt_path={last}"))
    assert_same(whole_folder, tmp_path / "resumed")
    assert figures(resumed) == figures(whole)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_is_remembered_by_a_resumed_run(mode, reviews, tmp_path, capsys):
    """By its last checkpoint: that of the same epoch as the best."""
    options = ["data.validation_fraction=0.2", "callbacks.best_checkpoint.monitor=val/loss"]
    options.append(f"callbacks.best_checkpoint.mode={mode}")
    metrics, _ = train(small_run(reviews, tmp_path / "first", *options, "trainer.max_epochs=1"))
    last, best = (tmp_path / "first" / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    (state,) = (v for k, v in torch.load(last, weights_only=True)["callbacks"].items() if "BestCheckpoint" in k)
    assert state == {"score": metrics["val/loss"], "best": str(best)}
    capsys.readouterr()
    later, _ = train(small_run(reviews, tmp_path / "second", *options, f"ckpt_path={last}"))
    beaten = later["val/loss"] > metrics["val/loss"] if mode == "max" else later["val/loss"] < metrics["val/loss"]
    second = tmp_path / "second" / "checkpoints" / "best.ckpt"
    assert second.exists() == beaten
    assert f"evaluate.py ckpt_path={second if beaten else best}" in capsys.readouterr().out


def test_a_score_that_is_no_number_beats_nothing(tmp_path):
    trainer = SimpleNamespace(
        fast_dev_run=False, num_val_batches=[1], callbacks=[], save_checkpoint=lambda path: saved.append(score)
    )
    for mode in ("max", "min"):
        saved, best = [], BestCheckpoint(str(tmp_path), mode=mode)
        for score in (math.nan, 0.5, math.nan, 0.5):
            trainer.callback_metrics = {"val/accuracy": torch.tensor(score)}
            best.on_train_epoch_end(trainer, None)
        assert saved == [0.5]


@pytest.fixture
def finished(reviews, tmp_path):
    train(small_run(reviews, tmp_path / "finished"))
    return tmp_path / "finished" / "checkpoints" / "last.ckpt"


def test_what_cannot_be_resumed_is_refused_before_anything_is_written(finished, reviews, tmp_path):
    folder = tmp_path / "new"

    def refused(error, match, *overrides, path=reviews):
        with pytest.raises(error, match=match):
            train(
                small_run(
                    path, folder, *([] if "ckpt_path" in str(overrides) else [f"ckpt_path={finished}"]), *overrides
                )
            )
        assert not folder.exists()

    refused(ConfigError, "raise trainer.max_epochs")
    relu = ["trainer.max_epochs=3", "model.cell.name=rnn_relu"]  # weights of equal shapes
    train(small_run(reviews, tmp_path / "tanh", "model.cell.name=rnn_tanh"))
    tanh = tmp_path / "tanh" / "checkpoints" / "last.ckpt"
    refused(CheckpointError, "model.net.recurrent.cell.name was rnn_tanh, is rnn_relu", *relu, f"ckpt_path={tanh}")
    refused(CheckpointError, "model.net.pooling was last, is mean", "model.net.pooling=mean", "trainer.max_epochs=3")
    refused(CheckpointError, "another model: .*weight", "model.net.recurrent.hidden_size=7", "trainer.max_epochs=3")
    other = parquet_folder(tmp_path / "other", train=60)
    refused(ConfigError, "optimizer.lr was 0.001, is 0.5. Resume without", "optimizer.lr=0.5", "trainer.max_epochs=3")
    refused(DataError, "another vocabulary", "trainer.max_epochs=3", path=other)
    damaged = finished.with_name("damaged.ckpt")
    damaged.write_bytes(finished.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="truncated"):
        train(small_run(reviews, folder, f"ckpt_path={damaged}"))
    assert not folder.exists()


def test_what_makes_a_resumed_run_another_is_said_and_nothing_else(finished, reviews, tmp_path):
    def said(name, *overrides, path=reviews):
        resume = [f"ckpt_path={finished}", "trainer.max_epochs=3", *overrides]
        train(small_run(path, tmp_path / name, *resume))
        return [x for x in (tmp_path / name / "train.log").read_text().splitlines() if "resuming" in x]

    moved = tmp_path / "moved"
    reviews.rename(moved)
    still = [f"data.cache_dir={tmp_path / 'elsewhere'}", "model.backend=reference", "data.eval_batch_size=3"]
    assert said("same", *still, path=moved) == []
    (line,) = said("seed", "seed=5", path=moved)
    assert "gone on: seed was 0, is 5" in line
    parquet(moved / "test.parquet", *made_reviews(20, 5))
    (line,) = said("others", path=moved)
    assert "the data are not those of local" in line


def test_a_run_keeps_to_the_backends_it_chose(reviews, tmp_path, monkeypatch):
    """Also where they would be chosen otherwise by now: in what goes on, in its test, and in its evaluation."""
    monkeypatch.delenv("SEQNETS_MEASURE")
    monkeypatch.setattr(autoselect, "LITTLE", 0)
    monkeypatch.setattr(autoselect.measured, "known", {})
    measured = []

    def measure(ratio):
        return lambda shape: measured.append(shape) or autoselect.Times(ratio, 1.0, ratio, clear=False)

    monkeypatch.setattr(autoselect, "_measure", measure(3.0))
    with pytest.raises(RuntimeError, match="on purpose"):
        train(small_run(reviews, tmp_path / "ended", *ended_by("Fail", 8)))
    autoselect.measured.known.clear()
    monkeypatch.setattr(autoselect, "_measure", measure(0.3))
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    trained, before = load_trained(last), len(measured)
    assert before and {times.ratio for times in autoselect.measured.known.values()} == {3.0}
    autoselect.measured.known.clear()
    _, objects = train(small_run(reviews, tmp_path / "resumed", f"ckpt_path={last}"))
    assert objects["result"]["backend"] == "cpp"
    assert [shape for shape in measured[before:] if shape.differentiated] == []
    assert trained.config["seed"] == 0
