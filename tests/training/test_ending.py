"""Whatever ends a run keeps its work: signals, closed pipes, errors."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from seqnets.training import train
from seqnets.training.checkpoint_io import read_checkpoint
from seqnets.training.ending import Ending
from tests.pipes import run_into_a_closed_pipe
from tests.training.helpers import SCRIPT, assert_same, command, ended_by, figures, small_run

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
VALIDATES = "data.validation_fraction=0.25"


@pytest.fixture(autouse=True)
def _as_in_a_terminal():
    """Signals are not ignored, as they are in what a shell runs in the background, or nohup."""
    before = [signal.signal(number, signal.default_int_handler) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def validated(folder):
    """Return what each validation of a run came to, and the means of its epochs, by step and name."""
    if not (folder / "metrics.csv").exists():
        return {}
    rows = pd.read_csv(folder / "metrics.csv").melt(["step", "epoch"]).dropna().itertuples()
    names = ("val/", "train/")
    return {
        (row.step, row.variable): row.value
        for row in rows
        if row.variable.startswith(names) and not row.variable.endswith("_step")
    }


def saved_step(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def status(folder):
    return json.loads((folder / "result.json").read_text())["status"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param("SIGINT", 130, id="Ctrl-C", marks=pytest.mark.faults),
        pytest.param("SIGTERM", 143, id="terminate"),
        pytest.param("SIGHUP", 129, id="hang up", marks=pytest.mark.faults),
    ],
)
def test_a_signal_ends_the_run_after_its_step(name, code, reviews, whole_run, tmp_path):
    process = subprocess.run(
        command(reviews, tmp_path / "ended", *ended_by(f"Signal{name}", 7)), capture_output=True, text=True, timeout=200
    )
    assert process.returncode == code, process.stderr
    assert "Traceback" not in process.stderr
    assert f"{name}: the run ends once what is being computed is done and saved" in process.stdout
    assert "ckpt_path=" in process.stdout
    assert saved_step(tmp_path / "ended") == 8 and status(tmp_path / "ended") == "interrupted"
    whole_folder, whole = whole_run()
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    resumed, _ = train(small_run(reviews, tmp_path / "resumed", f"ckpt_path={last}"))
    assert_same(whole_folder, tmp_path / "resumed")
    assert resumed["train/loss"] == whole["train/loss"]  # the mean over the epoch, of both parts


@pytest.mark.parametrize(
    ("how", "step", "options"),
    [
        ("FailInValidation", 8, ["+callbacks.end.batch=1"]),
        ("FailInValidation", 8, ["+callbacks.end.batch=end"]),
        ("SignalInValidation", 8, ["callbacks.last_checkpoint.every_n_train_steps=8"]),
        ("SignalInValidation", 8, ["+callbacks.end.batch=end"]),  # it has nothing left to do
        ("SignalTwiceInValidation", 16, ["+callbacks.end.batch=1"]),
        ("FailInValidation", 4, ["trainer.val_check_interval=0.5", "callbacks.last_checkpoint.every_n_train_steps=4"]),
        ("FailInValidation", 6, ["trainer.accumulate_grad_batches=3"]),
        ("FailIn", 8, ["+callbacks.end.where='last batch end'"]),  # just before it
        ("FailInValidation", 16, ["+callbacks.end.batch=1", "trainer.max_steps=16"]),
        ("FailInValidation", 12, ["+callbacks.end.batch=0", "trainer.max_steps=12", "trainer.val_check_interval=0.5"]),
        ("FailInValidation", 8, ["+callbacks.end.batch=after"]),
        ("FailAtEpochEnd", 8, []),
    ],
)
def test_what_ends_a_run_in_a_validation_keeps_the_steps_before_it(how, step, options, reviews, whole_run, tmp_path):
    """A resumed run begins with that validation, unless it was done."""
    common = [VALIDATES, "data.eval_batch_size=3", *(o for o in options if "end" not in o)]
    with pytest.raises((RuntimeError, SystemExit), match="on purpose|143"):
        train(
            small_run(reviews, tmp_path / "ended", *common, *ended_by(how, step), *(o for o in options if "end" in o))
        )
    assert saved_step(tmp_path / "ended") == step
    whole_folder, whole = whole_run(*common)
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    resumed, _ = train(small_run(reviews, tmp_path / "resumed", *common, f"ckpt_path={last}"))
    assert_same(whole_folder, tmp_path / "resumed")
    assert figures(resumed) == figures(whole)
    assert validated(tmp_path / "ended") | validated(tmp_path / "resumed") == validated(whole_folder)
    best = [folder / "checkpoints" / "best.ckpt" for folder in (whole_folder, tmp_path / "resumed")]
    assert best[0].exists() and (not best[1].exists() or read_checkpoint(best[1])["global_step"] >= step)


@pytest.mark.parametrize(
    "ends",
    [
        [("FailInValidation", 8, "batch=1"), ("FailInValidation", 8, "batch=0"), ("SignalInValidation", 8, "batch=0")],
        [("FailIn", 3, "where=loss"), ("SignalSIGTERM", 5, None), ("FailInValidation", 8, "batch=0")],
        [("FailInTransfer", 6, None), ("FailInTransfer", 7, None), ("FailAtEpochEnd", 8, None)],
        [("SignalSIGTERM", 7, None), ("FailIn", 15, "where=backward"), ("FailInValidation", 16, "batch=after")],
    ],
    ids=["validation again and again", "a step, then a validation", "between steps", "many ways"],
)
def test_a_run_may_end_many_times(ends, reviews, whole_run, tmp_path):
    common = [VALIDATES, "data.eval_batch_size=3"]
    go_on = []
    for number, (how, step, option) in enumerate(ends):
        end = [*ended_by(how, step), *([f"+callbacks.end.{option}"] if option else [])]
        with pytest.raises((RuntimeError, SystemExit), match="on purpose|143"):
            train(small_run(reviews, tmp_path / str(number), *common, *go_on, *end))
        go_on = [f"ckpt_path={tmp_path / str(number) / 'checkpoints' / 'last.ckpt'}"]
    resumed, _ = train(small_run(reviews, tmp_path / "resumed", *common, *go_on))
    whole_folder, whole = whole_run(*common)
    assert_same(whole_folder, tmp_path / "resumed")
    assert figures(resumed) == figures(whole)
    found = {}
    for folder in (*map(str, range(len(ends))), "resumed"):
        found |= validated(tmp_path / folder)
    assert found == validated(whole_folder)


def test_a_resumed_run_that_ends_before_its_first_step_writes_nothing(reviews, tmp_path):
    with pytest.raises(RuntimeError, match="on purpose"):
        train(small_run(reviews, tmp_path / "ended", *ended_by("FailIn", 7), "+callbacks.end.where=loss"))
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    with pytest.raises(RuntimeError, match="on purpose"):
        train(small_run(reviews, tmp_path / "resumed", f"ckpt_path={last}", *ended_by("FailAtStart", 0)))
    assert not (tmp_path / "resumed" / "checkpoints" / "last.ckpt").exists()


def test_a_checkpoint_before_a_validation_has_it_to_come(reviews, whole_run, tmp_path):
    common = [VALIDATES, "trainer.val_check_interval=0.5", "callbacks.last_checkpoint.every_n_train_steps=4"]
    train(small_run(reviews, tmp_path / "killed", *common, *ended_by("KeepBeforeValidation", 4)))
    kept = tmp_path / "killed" / "checkpoints" / "kept.ckpt"
    train(small_run(reviews, tmp_path / "resumed", *common, f"ckpt_path={kept}"))
    whole_folder, _ = whole_run(*common)
    assert_same(whole_folder, tmp_path / "resumed")
    assert {key for key in validated(whole_folder) if key[0] >= 3} == set(validated(tmp_path / "resumed"))


def test_nothing_is_saved_while_weights_and_averages_are_exchanged(reviews, tmp_path):
    callbacks = train(small_run(reviews, tmp_path / "run", "trainer.max_steps=1"))[1]["callbacks"]
    last, trainer = callbacks["last_checkpoint"], SimpleNamespace(callbacks=[SimpleNamespace(changing_weights=True)])
    last._accumulates, last._weights_change = lambda _: False, False
    trainer.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=None)))
    trainer.training = False
    assert not last.can_save(trainer)


def test_a_signal_while_gradients_accumulate(reviews, whole_run, tmp_path):
    options = ["trainer.accumulate_grad_batches=3"]
    with pytest.raises(SystemExit):
        train(small_run(reviews, tmp_path / "ended", *options, *ended_by("SignalSIGTERM", 1)))
    assert saved_step(tmp_path / "ended") == 2
    whole_folder, _ = whole_run(*options)
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    train(small_run(reviews, tmp_path / "resumed", *options, f"ckpt_path={last}"))
    assert_same(whole_folder, tmp_path / "resumed")


def test_a_second_signal_ends_it_at_once(reviews, tmp_path):
    with pytest.raises(SystemExit) as caught:
        train(small_run(reviews, tmp_path / "ended", *ended_by("SignalTwice", 7)))
    assert caught.value.code == 130
    assert saved_step(tmp_path / "ended") == 7  # not the step in flight


def test_an_end_while_the_best_checkpoint_is_written_leaves_none_that_tells_of_it(reviews, whole_run, tmp_path):
    options = [VALIDATES, "test_on=best", "callbacks.last_checkpoint.every_n_train_steps=5"]
    with pytest.raises(SystemExit):
        train(small_run(reviews, tmp_path / "ended", *options, *ended_by("EndWhileWriting", 7)))
    assert not (tmp_path / "ended" / "checkpoints" / "best.ckpt").exists()
    _, whole = whole_run(*options)
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    resumed, _ = train(small_run(reviews, tmp_path / "resumed", *options, f"ckpt_path={last}"))
    assert resumed["test/loss"] == whole["test/loss"]


def test_handlers_are_put_back(reviews, tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    train(small_run(reviews, tmp_path / "run", "trainer.max_steps=1"))
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 7), (signal.SIGTERM, 143)])
def test_a_forked_worker_leaves_ctrl_c_to_the_run_and_can_be_terminated(number, code):
    with Ending():
        child = os.fork()
        if child == 0:
            try:
                os.kill(os.getpid(), number)
                os._exit(7)
            except SystemExit as end:
                os._exit(end.code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


@pytest.mark.faults
def test_an_ignored_signal_stays_ignored(reviews, tmp_path):
    """A run leaves a signal ignored, as nohup sets it."""
    script = SCRIPT.replace("SIG_DFL", "SIG_IGN")
    started = command(reviews, tmp_path / "run", *ended_by("SignalSIGHUP", 7), script=script)
    process = subprocess.run(started, capture_output=True, text=True, timeout=200)
    assert process.returncode == 0 and status(tmp_path / "run") == "finished"


@pytest.mark.parametrize("step", [7, 9], ids=["in mid-epoch", "in an epoch's last step"])
@pytest.mark.parametrize("where", ["start", "loss", "backward", "batch end"])
def test_an_error_keeps_what_was_trained_and_resumes_bit_for_bit(where, step, reviews, whole_run, tmp_path):
    with pytest.raises(RuntimeError, match="on purpose"):
        train(small_run(reviews, tmp_path / "ended", *ended_by("FailIn", step), f"+callbacks.end.where='{where}'"))
    assert saved_step(tmp_path / "ended") == step + (where == "batch end")
    assert status(tmp_path / "ended") == "failed"
    whole_folder, whole = whole_run()
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    resumed, _ = train(small_run(reviews, tmp_path / "resumed", f"ckpt_path={last}"))
    assert_same(whole_folder, tmp_path / "resumed")
    assert figures(resumed) == figures(whole)


def test_metrics_with_lists_of_values_go_on_too(reviews, whole_run, tmp_path):
    own = "task._target_=tests.training.helpers.WithArea"
    with pytest.raises(RuntimeError, match="on purpose"):
        train(small_run(reviews, tmp_path / "ended", own, *ended_by("FailIn", 7), "+callbacks.end.where=loss"))
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    resumed, _ = train(small_run(reviews, tmp_path / "resumed", own, f"ckpt_path={last}"))
    assert resumed["train/area"] == whole_run(own)[1]["train/area"]


def test_an_error_while_weights_change_keeps_the_last_checkpoint(reviews, tmp_path):
    with pytest.raises(RuntimeError, match="on purpose"):
        train(small_run(reviews, tmp_path / "ended", *ended_by("FailIn", 13), "+callbacks.end.where=step"))
    assert saved_step(tmp_path / "ended") == 10


def test_a_closed_pipe_ends_the_run_after_its_step(reviews, tmp_path):
    process = subprocess.Popen(
        command(reviews, tmp_path / "run", "trainer.max_epochs=10000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while b"epoch 1" not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()  # as head does
    _, told = process.communicate(timeout=200)
    assert process.returncode == 141, told
    assert b"Traceback" not in told
    assert status(tmp_path / "run") == "interrupted" and saved_step(tmp_path / "run") > 0


@pytest.mark.faults
def test_a_closed_pipe_ends_evaluate_and_predict(reviews, tmp_path):
    train(small_run(reviews, tmp_path / "run", "trainer.max_steps=1"))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    for script in (["evaluate.py", f"ckpt_path={last}", "trainer.accelerator=cpu"], ["predict.py", last, "a film"]):
        status, errors = run_into_a_closed_pipe(*script)
        assert status == 141, errors
        assert b"Traceback" not in errors


def test_train_py_ends_with_the_signals_status(reviews, tmp_path):
    """By Hydra too."""
    options = [f"data.path={reviews}", f"hydra.run.dir={tmp_path / 'run'}", "data.batch_size=4", "data.max_tokens=8"]
    options += ["trainer.max_epochs=10000", "trainer.accelerator=cpu", "model.net.recurrent.hidden_size=5"]
    process = subprocess.Popen(
        [sys.executable, "train.py", "+experiment=imdb_bilstm", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    end = time.monotonic() + 150
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 143, told
    assert b"Traceback" not in told
