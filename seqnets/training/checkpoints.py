"""Decides when checkpoints are written, and makes each one self-contained.

This replaces Lightning's ModelCheckpoint, whose file names contain ``=``, which adds ``-v1`` to an existing name
instead of replacing the file, and which forgets the best score so far when a run resumes in a new folder.
"""

import copy
import logging
import math
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer import call

import seqnets
from seqnets.backends import autoselect
from seqnets.errors import CheckpointError, ConfigError, DivergenceError
from seqnets.tasks.position import batches_trained, in_flight, validates_next
from seqnets.training.checkpoint_io import read_checkpoint
from seqnets.training.divergence import may_save
from seqnets.training.ending import ending_of

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``: written after every epoch and, if asked, every `every_n_train_steps` optimizer steps.

    An epoch that is cut short (``max_steps``, ``max_time``, a signal) is saved as unfinished, so that a resumed run
    continues it. After an error, the steps since the last checkpoint are saved too, in the state at the end of the last
    whole step. If a validation or the end of the epoch was to follow that step, a resumed run begins with it.

    Attributes:
        saved_step: the number of optimizer steps in the checkpoint; None before training starts.
        saves_last_step: whether the checkpoint being written holds the state at the end of the last whole step.
    """

    def __init__(self, folder: str, every_n_train_steps: int | None = None) -> None:
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ConfigError(f"every_n_train_steps is {every_n_train_steps}; it must be at least 1, or null for never")
        self.path = Path(folder) / "last.ckpt"
        self.every_n_train_steps = every_n_train_steps
        self.saved_step: int | None = None
        self.saves_last_step = False
        self._weights_change = False
        # whether the epoch ends or a validation runs after the last whole step, and the state then of what these change
        self._ends_epoch = self._validates = False
        self._left: dict[str, Any] = {}
        self._trained = 0  # batches trained when these were noted
        self._saved_due = False  # the saved state still has a validation or an epoch end to run
        self._steps_added = 0

    # ---- at the start of a resumed run

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        due = checkpoint.get("due", {})
        self._ends_epoch, self._validates = due.get("ends_epoch", False), due.get("validates", False)
        # Lightning does not enter its loop once all steps are taken, not even for a validation that is due
        self._steps_added = int(self._due and checkpoint["global_step"] == trainer.max_steps)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.fit_loop.epoch_loop.max_steps += self._steps_added

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_steps_back(trainer)

    def _take_steps_back(self, trainer: Trainer) -> None:
        trainer.fit_loop.epoch_loop.max_steps -= self._steps_added
        self._steps_added = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_step, self._saved_due = trainer.global_step, self._due  # as in the checkpoint that is resumed
        self._left, self._trained = _changed_by_validation(trainer), batches_trained(trainer)
        # Lightning restores only the counts of the current epoch, not these totals
        total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        total.ready = total.started = total.processed

    # ---- from step to step

    def on_before_optimizer_step(self, *_: Any) -> None:
        self._weights_change = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._note_step(trainer)
        step = trainer.global_step
        # Nothing is saved while gradients accumulate, as checkpoints do not hold them. After the last batch of an
        # epoch, on_train_epoch_end saves, once validation is done and its metrics are known.
        wanted = self.every_n_train_steps is not None and step % self.every_n_train_steps == 0
        wanted |= trainer.fit_loop.epoch_loop.done or ending_of(trainer) is not None
        if wanted and step != self.saved_step and not self._ends_epoch and not self._accumulates(trainer):
            self._save(trainer, as_of_last_step=self._validates)

    def _note_step(self, trainer: Trainer) -> None:
        self._trained, self._weights_change = batches_trained(trainer), False
        self._ends_epoch, self._validates = trainer.is_last_batch, validates_next(trainer)
        if self._due:
            self._left = _changed_by_validation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validates = self._validates and self._ends_epoch  # a run that resumes at an epoch end repeats it

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_steps_back(trainer)
        if trainer.is_last_batch or trainer.global_step != self.saved_step or self._saved_due:
            self._save(trainer)
        self._ends_epoch = self._validates = False

    # ---- upon an error

    def can_save(self, trainer: Trainer) -> bool:
        """Return whether a run that ends here could be resumed from here, and there is something new to save."""
        if self.saved_step is None or self._accumulates(trainer) or (in_flight(trainer) and self._weights_change):
            return False
        if any(getattr(c, "changing_weights", False) for c in trainer.callbacks):  # type: ignore[attr-defined]
            return False
        return self._due or trainer.global_step != self.saved_step

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.saved_step is not None and self._trained != batches_trained(trainer):
            self._note_step(trainer)  # another callback raised at the end of a step
        if not self.can_save(trainer) or isinstance(exception, DivergenceError | CheckpointError):
            return
        try:
            self._save(trainer, as_of_last_step=True)
        except Exception as error:  # only logged: the user should see the first error
            log.warning("what was trained since step %d could not be saved: %s", self.saved_step, error)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self.saves_last_step:
            return
        loop = checkpoint["loops"]["fit_loop"]
        trained, validated = loop["epoch_loop.batch_progress"], loop["epoch_loop.val_loop.batch_progress"]
        trained["is_last_batch"] = self._ends_epoch
        for counts in (trained["total"], trained["current"]):
            done = counts["processed"]  # as Lightning counts at the end of a step or, if something is due, after it
            counts.update(ready=done, started=done, completed=done if self._due else done - 1)
        # Lightning adds one when it resumes, or after the validation
        added = self._validates or not self._due
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] = trainer.global_step - added
        for loader in loop["state_dict"].get("combined_loader", []):
            if "batches" in loader:  # a ResumableLoader; a batch that no step has used must be read again
                loader["batches"] = trained["current"]["processed"]
        if not self._due:
            return
        checkpoint["due"] = {"ends_epoch": self._ends_epoch, "validates": self._validates}
        for counts in ("total", "current"):
            # as if the validation had begun, so that Lightning continues it
            validated[counts] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            epoch = loop["epoch_progress"][counts]
            epoch["processed"] = min(epoch["processed"], epoch["started"] - 1)  # repeats the end of the epoch
        checkpoint["callbacks"] = self._left["callbacks"]
        for state, groups in zip(checkpoint["optimizer_states"], self._left["groups"], strict=True):
            for group, left in zip(state["param_groups"], groups, strict=True):
                group.update(left)

    def _save(self, trainer: Trainer, as_of_last_step: bool = False) -> None:
        if trainer.fast_dev_run or not may_save(trainer, self.path):  # type: ignore[attr-defined]
            return
        self.saves_last_step = as_of_last_step
        try:
            trainer.save_checkpoint(self.path)
        finally:
            self.saves_last_step = False
        self.saved_step, self._saved_due = trainer.global_step, as_of_last_step and self._due

    @property
    def _due(self) -> bool:
        """Return whether a validation or the end of the epoch comes before the next step."""
        return self._ends_epoch or self._validates

    def _accumulates(self, trainer: Trainer) -> bool:
        """Return whether gradients of whole batches wait for their optimizer step.

        The last batch of an epoch always takes that step.
        """
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        return batches.processed % trainer.accumulate_grad_batches != 0 and not self._ends_epoch


def _changed_by_validation(trainer: Trainer) -> dict[str, Any]:
    """Return a copy of what validations and epoch ends change: the callbacks' states and the optimizers' settings."""
    groups = [
        [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
        for optimizer in trainer.optimizers
    ]
    return copy.deepcopy({"callbacks": call._call_callbacks_state_dict(trainer), "groups": groups})


class BestCheckpoint(Checkpoint):
    """Keeps ``best.ckpt``, the best by a metric of the validation data. Without such data it never writes.

    The score and the file are stored in the checkpoints, so that a run that resumes in a folder of its own writes only
    what beats them.

    Attributes:
        score: the best score so far. NaN never beats it.
        best: the best file, in this run's folder or in that of a run that it resumes; None if there is none.
        beside: the folder of the checkpoint that the run resumes from, where the best one may lie too; None if it does
            not resume.
    """

    def __init__(self, folder: str, monitor: str = "val/accuracy", mode: Literal["min", "max"] = "max") -> None:
        if mode not in ("min", "max"):
            raise ConfigError(f"best_checkpoint.mode is {mode!r}; it must be min or max")
        self.path = Path(folder).absolute() / "best.ckpt"
        self.monitor, self.mode = monitor, mode
        self.score = -math.inf if mode == "max" else math.inf
        self.best: Path | None = None
        self.beside: Path | None = None

    @property
    def state_key(self) -> str:
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)  # a score is of one metric

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
            trainer.save_checkpoint(self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "best": self.best and str(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.best = state_dict["score"], self.locate(state_dict)

    def locate(self, state: dict[str, Any]) -> Path | None:
        """Return the best checkpoint that `state` describes; None if it is gone.

        It is looked for where it was written, and beside the checkpoint that the run resumes from. A file found must
        still have the score in `state`.
        """
        places = [Path(state["best"])] if state["best"] else []
        places += [self.beside / "best.ckpt"] if self.beside and places else []
        for place in places:
            if place.exists() and read_checkpoint(place)["callbacks"][self.state_key]["score"] == state["score"]:
                return place
        return None


def best_checkpoint(callbacks: dict[str, Callback]) -> BestCheckpoint | None:
    """Return the `BestCheckpoint` among `callbacks`; None if there is none."""
    return next((c for c in callbacks.values() if isinstance(c, BestCheckpoint)), None)


class SelfContained(Callback):
    """Stores configuration, vocabulary, labels and the origin of the data in each checkpoint, under ``"seqnets"``.

    `predict.py` and `evaluate.py` then need only the file.
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
        checkpoint["seqnets"] = self.content | {
            "verdicts": autoselect.verdicts()
        }  # so that a resumed run keeps its backends
