"""Tells where in its loops a Lightning trainer is: what a checkpoint must hold depends on it."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn


def in_flight(trainer: Trainer) -> bool:
    """Tell whether a training step has begun and not ended, as when an error is handled that it raised."""
    batches = _batches(trainer)
    return trainer.training and batches.ready > batches.processed


def in_validation(trainer: Trainer) -> bool:
    """Tell whether a validation runs that belongs to training: neither the sanity check before it, nor one on its own."""
    return trainer.state.fn == TrainerFn.FITTING and trainer.validating


def before_epoch_end(trainer: Trainer) -> bool:
    """Tell whether all steps of an epoch are taken, and its end, with the validation that it may have, is still to come."""
    batches = _batches(trainer)
    return _epoch_goes_on(trainer) and trainer.is_last_batch and batches.ready == batches.processed


def in_mid_epoch(trainer: Trainer) -> bool:
    """Tell whether the epoch still has batches or a validation to come, or was cut short."""
    return not trainer.is_last_batch or _epoch_goes_on(trainer)


def accumulates(trainer: Trainer) -> bool:
    """Tell whether gradients of whole batches wait for their optimizer step."""
    batches = _batches(trainer)
    stepped_anyway = trainer.is_last_batch and batches.ready == batches.processed  # at the end of an epoch
    return batches.processed % trainer.accumulate_grad_batches != 0 and not stepped_anyway


def _epoch_goes_on(trainer: Trainer) -> bool:
    epoch: Any = trainer.fit_loop.epoch_progress.current
    return epoch.processed < epoch.started


def _batches(trainer: Trainer) -> Any:
    return trainer.fit_loop.epoch_loop.batch_progress.current
