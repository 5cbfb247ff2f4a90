"""Rejects settings that could only fail in training, before a run takes its folder."""

import logging
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from seqnets.data.streams import Chunks
from seqnets.errors import ConfigError, SeqnetsError
from seqnets.tasks import Task
from seqnets.training.averaging import NTASGD, AveragedWeights
from seqnets.training.checkpoints import BestCheckpoint, best_checkpoint

log = logging.getLogger(__name__)


def check_monitors(config: dict[str, Any], callbacks: dict[str, Callback], data: Any, task: Task) -> None:
    """Check that callbacks monitor metrics that are logged, and validation data that exist.

    A callback names what it logs in an attribute ``logged``. A task without such an attribute may log anything.

    Raises:
        ConfigError: If a metric or the data are missing, or if ``test_on=best`` will find no best checkpoint.
    """
    loaders = data.val_dataloader()
    validates = config["trainer"]["limit_val_batches"] != 0 and not (isinstance(loaders, list) and not loaders)
    writes = best_checkpoint(callbacks) is not None and config["trainer"]["enable_checkpointing"] is not False
    if config["test_on"] == "best" and not (validates and writes):
        raise ConfigError(
            "test_on=best tests the checkpoint that was best on validation data, but there are no such data or "
            "no callbacks.best_checkpoint: test_on=last tests the weights that training ended with"
        )
    logged = [*getattr(task, "logged", ()), *(name for c in callbacks.values() for name in getattr(c, "logged", ()))]
    logged = [name for name in logged if not name.startswith("test/")]
    for name, callback in callbacks.items():
        monitor = getattr(callback, "monitor", None)
        if not monitor or (isinstance(callback, BestCheckpoint) and not validates):
            continue
        if monitor.startswith("val/") and not validates:
            raise ConfigError(
                f"callbacks.{name} watches {monitor}, but there are no validation data: "
                "hold out a part of the training data with data.validation_fraction=0.1, or watch a train/… metric"
            )
        if monitor.startswith("test/"):
            raise ConfigError(
                f"callbacks.{name} watches {monitor}, which is known only after training: "
                "watch a val/… or train/… metric"
            )
        if hasattr(task, "logged") and monitor.removesuffix("_step") not in logged:
            close = get_close_matches(monitor, logged, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(
                f"callbacks.{name} watches {monitor}, which nothing logs: these are {', '.join(logged)}{hint}"
            )


def refuse_overfitting(data: Any, trainer: Trainer) -> None:
    """Raise ConfigError if ``overfit_batches`` is set for a text in streams, which has no single examples to read."""
    if trainer.overfit_batches and isinstance(data.train_dataloader().sampler, Chunks):  # type: ignore[attr-defined]
        raise ConfigError(
            "trainer.overfit_batches reads single examples, which a text in streams does not have: "
            "trainer.limit_train_batches=<N> trains on the first N chunks"
        )


def refuse_model(task: Any, data: Any, trainer: Trainer) -> None:
    """Raise if the model cannot process the data or its backend cannot serve it, by trying it on one example."""
    device = trainer.strategy.root_device
    trainer.precision_plugin.convert_module(task).to(device).eval()  # in place; eval mode draws no random numbers
    try:
        with trainer.precision_plugin.forward_context():
            task.check(data)
    except SeqnetsError:
        raise
    except Exception as error:  # whatever the modules raise
        raise ConfigError(f"model.net cannot take the data: {type(error).__name__}: {error}") from error
    task.train()


def refuse_optimizer(
    optimizer: Callable[[list[nn.Parameter]], Any], callbacks: dict[str, Callback], trainer: Trainer
) -> None:
    try:
        probe = optimizer([nn.Parameter(torch.zeros(1))])  # an optimizer checks its options when it gets parameters
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"optimizer cannot be built: {error}") from error
    averages = any(isinstance(c, AveragedWeights) for c in callbacks.values())
    if averages != isinstance(probe, NTASGD):
        raise ConfigError(
            "optimizer=ntasgd and callbacks=averaged_weights go together: one without the other averages nothing"
        )
    fused = getattr(probe, "_step_supports_amp_scaling", False)
    if fused and trainer.gradient_clip_val and isinstance(trainer.precision_plugin, MixedPrecision):
        raise ConfigError(
            f"Lightning does not clip gradients in {trainer.precision} for a fused optimizer, which unscales them "
            "itself: add optimizer.fused=false, or leave out trainer.gradient_clip_val or the mixed precision"
        )


def build_schedule(task: Task, data: Any, trainer: Trainer) -> Any:
    """Build the learning rate schedule on a dummy optimizer, to check it; return None if there is none.

    Raises:
        ConfigError: If it cannot be built.
    """
    try:
        return task.schedule(task.optimizer([nn.Parameter(torch.zeros(1))]), trainer, data)
    except SeqnetsError:
        raise
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ConfigError(f"scheduler cannot be built: {error}") from error
