"""Tells where in its loops a Lightning trainer is, because the content of a checkpoint depends on it."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn


def batches_trained(trainer: Trainer) -> int:
    """Return how many batches have gone through a whole training step, over all epochs."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    return progress.total.processed


def in_flight(trainer: Trainer) -> bool:
    """Return whether a training step has begun and not ended, as while handling an error that it raised."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return trainer.training and batches.ready > batches.processed


def in_validation(trainer: Trainer) -> bool:
    """Return whether a validation is running that belongs to training.

    The sanity check before training and a validation on its own do not count.
    """
    return trainer.state.fn == TrainerFn.FITTING and trainer.validating


def saves_last_step(trainer: Trainer) -> bool:
    """Return whether the checkpoint being written holds the state at the end of the last whole step.

    It then leaves out whatever came after that step.
    """
    return any(getattr(c, "saves_last_step", False) for c in trainer.callbacks)  # type: ignore[attr-defined]


def saves_mid_epoch(trainer: Trainer) -> bool:
    """Return whether a run that resumes from the checkpoint being written continues within an epoch."""
    return saves_last_step(trainer) or not trainer.is_last_batch


def validates_next(trainer: Trainer) -> bool:
    """Return after a step whether a validation follows, and would follow in a resumed run too.

    A validation that follows because training stops, or because some time has passed, would not.
    """
    if trainer._val_check_time_interval is not None:  # type: ignore[attr-defined]
        return False
    stops, trainer.should_stop = trainer.should_stop, False
    try:
        return trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
    finally:
        trainer.should_stop = stops
