"""When checkpoints are written, and what makes one whole in itself.

Not Lightning's ModelCheckpoint: its names carry ``=``, an occupied name gets a ``-v1`` instead of being replaced, and a
run resumed into a new folder forgets the best score so far.
"""

import logging
import math
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

import seqnets
from seqnets.backends import race
from seqnets.errors import CheckpointError, ConfigError, DivergenceError
from seqnets.tasks.position import accumulates, before_epoch_end, in_flight, in_validation
from seqnets.training.checkpoint_io import read_checkpoint
from seqnets.training.divergence import may_save
from seqnets.training.ending import ending_of

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``: at the end of every epoch and, if asked, every `every_n_train_steps` optimizer steps.

    An epoch that is cut short (``max_steps``, ``max_time``, a signal) is saved as what it is, so that a resumed run goes on in it.
    After an error the steps since the last checkpoint are saved too, as of the end of the last whole step; where it came in a
    validation, that validation is the first thing that a resumed run does.

    Attributes:
        saved_step: the optimizer steps that are in the checkpoint.
    """

    def __init__(self, folder: str, every_n_train_steps: int | None = None) -> None:
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ConfigError(f"every_n_train_steps is {every_n_train_steps}; it must be at least 1, or null for never")
        self.path = Path(folder) / "last.ckpt"
        self.every_n_train_steps = every_n_train_steps
        self.saved_step = 0
        self._weights_change = False
        self._validation_is_due = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_step = trainer.global_step  # that of the checkpoint resumed from

    def on_before_optimizer_step(self, *_: Any) -> None:
        self._weights_change = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._weights_change = False
        step = trainer.global_step
        # gradients that accumulate are not saved;
        # after an epoch's last batch the end of the epoch saves, with validation done and metrics known
        due = self.every_n_train_steps is not None and step % self.every_n_train_steps == 0
        due |= trainer.fit_loop.epoch_loop.done or ending_of(trainer) is not None
        if due and step != self.saved_step and not trainer.is_last_batch and not accumulates(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_last_batch or trainer.global_step != self.saved_step:
            self._save(trainer)

    def can_save(self, trainer: Trainer) -> bool:
        """Tell whether a run that ends here can go on from here, and there is something new to save."""
        if accumulates(trainer) or (in_flight(trainer) and self._weights_change):
            return False
        if not in_validation(trainer) and not (trainer.training and trainer.global_step != self.saved_step):
            return False
        # Lightning does not resume for a validation alone where all steps are taken
        return not (_validation_is_due(trainer) and 0 <= trainer.max_steps <= trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not self.can_save(trainer) or isinstance(exception, DivergenceError | CheckpointError):
            return
        if any(isinstance(c, BestCheckpoint) and c.writing for c in trainer.callbacks):  # type: ignore[attr-defined]
            return
        self._validation_is_due = _validation_is_due(trainer)
        try:
            self._save(trainer)
        except Exception as error:  # the first one is what the user is told
            log.warning("what was trained since step %d could not be saved: %s", self.saved_step, error)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if in_flight(trainer):  # the batch that failed is to be read again
            loop = checkpoint["loops"]["fit_loop"]
            for loader in loop["state_dict"].get("combined_loader", []):
                if "batches" in loader:  # of this library's loaders
                    loader["batches"] -= 1
            loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # Lightning adds one as it resumes
        if self._validation_is_due:
            loop = checkpoint["loops"]["fit_loop"]
            trained, validated = loop["epoch_loop.batch_progress"], loop["epoch_loop.val_loop.batch_progress"]
            for counts in ("total", "current"):
                trained[counts]["completed"] = trained[counts]["processed"]
                validated[counts] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # so Lightning does it

    def _save(self, trainer: Trainer) -> None:
        if not trainer.fast_dev_run and may_save(trainer, self.path):  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path)
            self.saved_step = trainer.global_step


def _validation_is_due(trainer: Trainer) -> bool:
    return in_validation(trainer) or before_epoch_end(trainer)


class BestCheckpoint(Checkpoint):
    """Keeps ``best.ckpt``, by a metric of the validation data; without such data it never writes.

    Score and file go into the checkpoints, so that a resumed run, in a folder of its own, writes only what beats it.

    Attributes:
        score: that of the best so far; NaN beats nothing.
        best: the file of it, in this run's folder or in that of a run it goes on from; None where there is none.
        beside: the folder of the checkpoint that is resumed from, where the best one may lie too.
    """

    def __init__(self, folder: str, monitor: str = "val/accuracy", mode: Literal["min", "max"] = "max") -> None:
        if mode not in ("min", "max"):
            raise ConfigError(f"best_checkpoint.mode is {mode!r}; it must be min or max")
        self.path = Path(folder).absolute() / "best.ckpt"
        self.monitor, self.mode = monitor, mode
        self.score = -math.inf if mode == "max" else math.inf
        self.best: Path | None = None
        self.beside: Path | None = None
        self.writing = False

    @property
    def state_key(self) -> str:
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)  # the score of another metric is none

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run or not sum(trainer.num_val_batches):  # type: ignore[attr-defined]
            return
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise ConfigError(f"best_checkpoint.monitor={self.monitor} is not a metric of this run: {known}")
        score = float(trainer.callback_metrics[self.monitor])
        better = score > self.score if self.mode == "max" else score < self.score
        if better and may_save(trainer, self.path):
            self.score, self.best = score, self.path
            self.writing = True  # and so it stays if it fails: other checkpoints would tell of a file that is not there
            trainer.save_checkpoint(self.path)
            self.writing = False

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "best": self.best and str(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.best = state_dict["score"], self.locate(state_dict)

    def locate(self, state: dict[str, Any]) -> Path | None:
        """The best checkpoint that `state` tells of: where it was, or beside the one resumed from, if it is still that one."""
        places = [Path(state["best"])] if state["best"] else []
        places += [self.beside / "best.ckpt"] if self.beside and places else []
        for place in places:
            if place.exists() and read_checkpoint(place)["callbacks"][self.state_key]["score"] == state["score"]:
                return place
        return None


def best_checkpoint(callbacks: dict[str, Callback]) -> BestCheckpoint | None:
    """The one among `callbacks`, if there is one."""
    return next((c for c in callbacks.values() if isinstance(c, BestCheckpoint)), None)


class SelfContained(Callback):
    """Puts configuration, vocabulary, labels and the data's origin into each checkpoint under ``"seqnets"``.

    `predict.py` and `evaluate.py` then need nothing but the file.
    """

    def __init__(self, config: dict[str, Any], data: Any) -> None:
        self.content = {
            "version": seqnets.__version__,
            "torch": torch.__version__,
            "config": config,
            "encoder": data.encoder.to_dict(),
            "labels": list(data.labels),
            "data": data.provenance(),
        }

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["seqnets"] = self.content | {"verdicts": race.verdicts()}  # so that the run keeps to its backends
