"""Runs whose numbers are none: they stop with the way out, and no healthy checkpoint is replaced."""

import json
import math

import pytest
import torch
from lightning.pytorch import Callback

import evaluate as evaluate_script
import predict
from seqnets.errors import CheckpointError, ConfigError, DivergenceError
from seqnets.training import load_trained, train
from tests.training.helpers import compose, small_run


class Spoil(Callback):
    """Makes one number of a training step NaN: of the loss, hence of all gradients, or of one gradient alone."""

    def __init__(self, step, what="loss"):
        self.step, self.what = step, what

    def on_train_batch_start(self, trainer, task, batch, *_):
        if trainer.global_step == self.step and self.what == "loss":
            inner = task.loss
            task.loss = lambda batch, part: _spoiled(task, inner(batch, part))

    def on_after_backward(self, trainer, task):
        if trainer.global_step == self.step and self.what == "gradient":
            next(p for p in task.parameters() if p.grad is not None).grad.flatten()[0] = math.inf


def _spoiled(task, found):
    task.__dict__.pop("loss")  # once
    loss, *rest = found
    return (loss * math.nan, *rest)


def spoiled(step, what="loss"):
    target = f"+callbacks.spoil._target_={Spoil.__module__}.Spoil"
    return [target, f"+callbacks.spoil.step={step}", f"+callbacks.spoil.what={what}"]


def checkpoint(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def strict(file):
    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(file.read_text(), parse_constant=refuse)


def test_a_loss_that_is_nan_stops_the_run_and_keeps_the_last_checkpoint(reviews, tmp_path):
    with pytest.raises(DivergenceError) as caught:
        train(small_run(reviews, tmp_path / "run", *spoiled(13)))
    told = str(caught.value)
    for part in ("the loss is nan at step 14", "learning rate 0.001", "gradient norm nan"):
        assert part in told
    for way_out in ("optimizer.lr", "trainer.gradient_clip_val", "task.on_nonfinite=skip"):
        assert way_out in told
    assert checkpoint(tmp_path / "run")["global_step"] == 10
    result = strict(tmp_path / "run" / "result.json")
    assert result["status"] == "failed" and "the loss is nan at step 14" in result["error"]


def test_a_learning_rate_that_is_infinite_is_found_before_its_weights_are_saved(reviews, tmp_path):
    with pytest.raises(DivergenceError, match="learning rate inf"):
        train(small_run(reviews, tmp_path / "run", "optimizer.lr=inf", "trainer.limit_train_batches=1"))
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert strict(tmp_path / "run" / "result.json")["status"] == "failed"


def test_without_checkpoints_too(reviews, tmp_path):
    cfg = small_run(reviews, tmp_path / "run", *spoiled(9, "gradient"), "trainer.max_steps=10")
    cfg.trainer.enable_checkpointing = False
    with pytest.raises(DivergenceError, match="weights"):
        train(cfg)


def test_skip_leaves_the_step_out(reviews, tmp_path):
    metrics, objects = train(small_run(reviews, tmp_path / "run", "task.on_nonfinite=skip", *spoiled(13)))
    assert objects["result"]["status"] == "finished" and math.isfinite(metrics["test/loss"])
    assert "step 14 is skipped" in (tmp_path / "run" / "train.log").read_text()
    assert all(value.isfinite().all() for value in checkpoint(tmp_path / "run")["state_dict"].values())


def test_skip_stops_where_the_weights_are_none(reviews, tmp_path):
    with pytest.raises(DivergenceError, match=r"weights.*, or go on with task\.on_nonfinite=warn$") as caught:
        train(small_run(reviews, tmp_path / "run", "task.on_nonfinite=skip", "optimizer.lr=inf"))
    assert "=skip" not in str(caught.value)


def test_warn_goes_on_and_keeps_the_last_healthy_checkpoint(reviews, tmp_path):
    _, objects = train(small_run(reviews, tmp_path / "run", "task.on_nonfinite=warn", *spoiled(13)))
    assert objects["result"]["status"] == "finished"
    result = strict(tmp_path / "run" / "result.json")
    assert result["metrics"]["test/loss"] is None  # JSON has no NaN
    assert checkpoint(tmp_path / "run")["global_step"] == 10
    log = (tmp_path / "run" / "train.log").read_text()
    assert log.count("the loss is nan at step 14") == 1 and "last.ckpt is kept as it was" in log


def test_the_loss_on_validation_data_counts(reviews, tmp_path):
    class Overflow(Callback):
        def on_validation_start(self, trainer, task):
            self.kept = task.loss
            task.loss = lambda batch, part: ((found := self.kept(batch, part))[0] * math.inf, found[1])

        def on_validation_end(self, trainer, task):
            del task.loss

    globals()["Overflow"] = Overflow
    with pytest.raises(DivergenceError, match="val/loss is inf after step 8"):
        train(
            small_run(
                reviews,
                tmp_path / "run",
                "data.validation_fraction=0.2",
                f"+callbacks.overflow._target_={__name__}.Overflow",
            )
        )


def test_a_word_that_is_no_choice_is_refused(reviews, tmp_path):
    with pytest.raises(ConfigError, match=r"task.on_nonfinite is 'ignore'; choose stop, skip or warn"):
        train(small_run(reviews, tmp_path / "run", "task.on_nonfinite=ignore"))


@pytest.fixture
def sick(reviews, tmp_path):
    """A checkpoint with a weight that is NaN, as other versions may have written it."""
    train(small_run(reviews, tmp_path / "run", "trainer.max_epochs=1"))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    next(iter(content["state_dict"].values())).flatten()[0] = math.nan
    torch.save(content, path)
    return path


def test_predict_evaluate_and_resume_say_so(sick, reviews, tmp_path):
    message = "holds weights that are not finite"
    with pytest.raises(CheckpointError, match=message):
        load_trained(sick)
    with pytest.raises(SystemExit, match=message):
        predict.main([str(sick), "good"])
    with pytest.raises(CheckpointError, match=message):
        evaluate_script.evaluate(compose(f"ckpt_path={sick}", name="evaluate"))
    with pytest.raises(CheckpointError, match=message):
        train(small_run(reviews, tmp_path / "other", f"ckpt_path={sick}"))
    assert not (tmp_path / "other").exists()
