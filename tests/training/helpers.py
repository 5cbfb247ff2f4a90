"""Small runs on small made reviews, and ways to end them early."""

import gc
import os
import runpy
import shutil
import signal
import sys
import traceback
from pathlib import Path

import hydra
import torch
from lightning.pytorch import Callback
from torchmetrics import AUROC

import seqnets.training  # registers the Trainer's arguments with Hydra
from seqnets.tasks import Classification

CONF = Path(seqnets.training.__file__).parents[2] / "conf"

# Trains in a process of its own, in which no signal is ignored, as in a terminal
SCRIPT = (
    "import signal, sys, torch; torch.set_num_threads(1)\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    "from seqnets.training import train\n"
    "from tests.training.helpers import small_run\n"
    "train(small_run(*sys.argv[1:]))\n"
)

# two layers and dropout: a resumed run must draw what the first would have drawn
SMALL = [
    "data.vocab_size=40",
    "data.max_tokens=8",
    "data.batch_size=4",
    "model.net.embedding.embedding_dim=6",
    "model.net.recurrent.hidden_size=5",
    "model.net.recurrent.dropout=0.5",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
]


def compose(*overrides, name="train", whole=False):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(name, overrides=list(overrides), return_hydra_config=whole)


def small_run(reviews, folder, *overrides, experiment="imdb_bilstm"):
    """The configuration of a run that takes a second: 40 reviews, 10 steps an epoch."""
    where = [f"data.path={reviews}", f"run_dir={folder}"]
    return compose(f"+experiment={experiment}", *where, *SMALL, *overrides)


def command(reviews, folder, *overrides, script=SCRIPT):
    """The command of such a run."""
    return [sys.executable, "-c", script, str(reviews), str(folder), *overrides]


def script(name, monkeypatch, capsys):
    """Return a function that runs a script, such as train.py, in this process:
    an interpreter of its own takes seconds to start.

    It takes the arguments and returns the exit status and what was written on standard output and standard error.
    """

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        capsys.readouterr()
        status = 0
        try:
            runpy.run_path(str(CONF.parent / name), run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
            if isinstance(status, str):  # what the interpreter prints
                print(status, file=sys.stderr)
                status = 1
        except Exception:
            traceback.print_exc()
            status = 1
        gc.collect()  # a lock in the frames of an exception
        return status, *capsys.readouterr()

    return run


def ended_by(what, step):
    """Overrides that end a run before it takes its optimizer step number `step` + 1."""
    return [f"+callbacks.end._target_=tests.training.helpers.{what}", f"+callbacks.end.step={step}"]


class WithArea(Classification):
    """Has a metric whose state is a list of tensors."""

    def metrics(self):
        return super().metrics() | {"area": AUROC(task="binary")}

    def update(self, metrics, loss, found, batch):
        super().update(metrics, loss, found, batch)
        metrics["area"].update(found.detach(), batch.targets)


class Fail(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("ended on purpose")


class Stop(Fail):
    """As a limit on time does."""

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == self.step

    on_train_batch_start = Callback.on_train_batch_start


class Kill(Fail):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class KillWhileWriting(Fail):
    """SIGKILL between the writing of a checkpoint, from `step` on, and its renaming."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


class EndWhileWriting(Fail):
    """An end, as by a second signal, in the first checkpoint that is written after `step` steps."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            self.replace, os.replace = os.replace, self.end

    def end(self, *_):
        os.replace = self.replace
        raise SystemExit(143)


def figures(metrics):
    """Return the metrics of a run without its times."""
    return {name: value for name, value in metrics.items() if "/" in name}


def weights_and_optimizer(folder):
    """Return the tensors of a run's last checkpoint, by name, and the settings of its optimizer."""
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    optimizer = checkpoint["optimizer_states"][0]
    moments = optimizer["state"]
    flat = {f"{k}.{name}": value for k, state in moments.items() for name, value in state.items()}
    return checkpoint["state_dict"] | flat, optimizer["param_groups"]


def assert_same(folder, other):
    """The last checkpoints of both runs hold bitwise the same weights and optimizer state."""
    (left, groups), (right, others) = weights_and_optimizer(folder), weights_and_optimizer(other)
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different
    assert groups == others


class _Signals(Fail):
    """A signal in the middle of the training step after `step` steps."""

    numbers = ()

    def on_after_backward(self, trainer, *_):
        if trainer.global_step == self.step:
            self.step = -1  # once
            for number in self.numbers:
                os.kill(os.getpid(), number)

    on_train_batch_start = Callback.on_train_batch_start


class SignalSIGINT(_Signals):
    numbers = (signal.SIGINT,)


class SignalSIGTERM(_Signals):
    numbers = (signal.SIGTERM,)


class SignalSIGHUP(_Signals):
    numbers = (signal.SIGHUP,)


class SignalTwice(_Signals):
    numbers = (signal.SIGTERM, signal.SIGINT)


class FailInValidation(Fail):
    """An error in a batch, or at the end, of the validation after `step` steps."""

    def __init__(self, step, batch=0):
        super().__init__(step)
        self.batch = batch

    on_train_batch_start = Callback.on_train_batch_start

    def on_validation_batch_start(self, trainer, module, batch, number, *_):
        if trainer.global_step == self.step and number == self.batch and not trainer.sanity_checking:
            self.end()

    def on_validation_epoch_end(self, trainer, *_):
        if trainer.global_step == self.step and self.batch == "end":
            self.end()

    def on_validation_end(self, trainer, *_):
        if trainer.global_step == self.step and self.batch == "after":
            self.end()

    def end(self):
        raise RuntimeError("ended on purpose")


class FailAfterValidation(FailInValidation):
    def __init__(self, step):
        super().__init__(step, "after")


class SignalInValidation(FailInValidation):
    def end(self):
        os.kill(os.getpid(), signal.SIGTERM)


class SignalTwiceInValidation(FailInValidation):
    def end(self):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)


class FailIn(Fail):
    """An error in a place of the training step after `step` steps."""

    def __init__(self, step, where):
        super().__init__(step)
        self.where = where

    def _reached(self, trainer, where, step=None):
        if self.where == where and trainer.global_step == (self.step if step is None else step):
            raise RuntimeError("ended on purpose")

    def on_train_batch_start(self, trainer, module, *_):
        self._reached(trainer, "start")
        if self.where == "loss" and trainer.global_step == self.step:
            inner = module.model

            def fail(*given):
                inner.forward_once(*given)  # draws its dropout
                raise RuntimeError("ended on purpose")

            inner.forward_once, inner.forward = inner.forward, fail

    def on_before_backward(self, trainer, *_):
        self._reached(trainer, "backward")

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if self.where == "step" and trainer.global_step == self.step:
            optimizer.register_step_post_hook(lambda *_: self._reached(trainer, "step"))

    def on_train_batch_end(self, trainer, *_):
        self._reached(trainer, "batch end", self.step + 1)
        self._reached(trainer, "last batch end")


class FailInTransfer(Fail):
    """An error between the fetching of a batch, after `step` steps, and its training step."""

    on_train_batch_start = Callback.on_train_batch_start

    def on_train_start(self, trainer, module):
        transfer = module.transfer_batch_to_device

        def fail(*given):
            if trainer.training and trainer.global_step == self.step:
                raise RuntimeError("ended on purpose")
            return transfer(*given)

        module.transfer_batch_to_device = fail


class FailAtStart(Fail):
    def on_train_start(self, *_):
        raise RuntimeError("ended on purpose")


class FailAtEpochEnd(Fail):
    on_train_batch_start = Callback.on_train_batch_start

    def on_train_epoch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("ended on purpose")


class KeepBeforeValidation(Fail):
    """Keeps the checkpoint that a kill at the start of the validation after `step` steps would leave."""

    on_train_batch_start = Callback.on_train_batch_start

    def on_validation_start(self, trainer, *_):
        if trainer.global_step == self.step:
            folder = Path(trainer.default_root_dir) / "checkpoints"
            shutil.copy(folder / "last.ckpt", folder / "kept.ckpt")


class FailInBackward(FailIn):
    def __init__(self, step):
        super().__init__(step, "backward")
