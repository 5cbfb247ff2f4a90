"""Detects that a run has diverged: a loss or a weight is NaN or infinite."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from seqnets.errors import DivergenceError

log = logging.getLogger(__name__)

WAY_OUT = "lower optimizer.lr, or clip gradients with trainer.gradient_clip_val=1.0"
OTHERS = {  # where `on_nonfinite` has this value
    "stop": ", or go on with task.on_nonfinite=skip, which leaves such steps out, or warn",
    "skip": ", or go on with task.on_nonfinite=warn",
}


def name_nonfinite(module: nn.Module, values: Mapping[str, Tensor] | None = None) -> str | None:
    """Return the name of the first parameter of `module` that holds NaN or infinity; None if all are finite.

    Args:
        module: the module.
        values: the parameters to check, by name, in place of the module's own.
    """
    for name, parameter in module.named_parameters():
        value = parameter if values is None else values.get(name)
        if value is not None and not value.isfinite().all():
            return name
    return None


class DivergenceGuard(Callback):
    """Acts on a loss or a weight that is not finite, as ``task.on_nonfinite`` says.

    ``stop`` raises `DivergenceError`. ``skip`` skips each step whose gradients are not finite, and raises if the
    weights are not. ``warn`` logs the first such step. Losses are checked after every step on the CPU. On a GPU, where
    reading a loss waits for the device, they are checked every ``log_every_n_steps``. Weights are checked before they
    are saved, and at the end of training.
    """

    def __init__(self) -> None:
        self._losses: list[tuple[int, Tensor]] = []  # of steps that are not checked yet
        self._learning_rate = math.nan
        self._warned = False

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self._learning_rate = optimizer.param_groups[0]["lr"]
        if pl_module.on_nonfinite == "skip" and not math.isfinite(norm := gradient_norm(pl_module)):
            self.check_weights(trainer, pl_module)  # otherwise every step would be skipped
            log.warning("step %d is skipped: its gradient norm is %g", trainer.global_step + 1, norm)
            optimizer.zero_grad(set_to_none=True)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        if pl_module.on_nonfinite == "skip" or not isinstance(outputs, Mapping) or "loss" not in outputs:
            return
        loss = outputs["loss"]
        self._losses.append((trainer.global_step, loss))
        every = 1 if loss.device.type == "cpu" else trainer.log_every_n_steps or 1  # type: ignore[attr-defined]
        if len(self._losses) < every:
            return
        values = torch.stack([loss for _, loss in self._losses]).tolist()
        steps = [step for step, _ in self._losses]
        self._losses.clear()
        for step, value in zip(steps, values, strict=True):
            if not math.isfinite(value):
                norm = gradient_norm(pl_module)
                self._act(
                    pl_module,
                    f"the loss is {value:g} at step {step} "
                    f"(learning rate {self._learning_rate:g}, gradient norm {norm:g})",
                )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._check_mean(trainer, pl_module, "val/loss")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_mean(trainer, pl_module, "test/loss")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check_weights(trainer, pl_module)

    def check_weights(self, trainer: Trainer, task: Any) -> bool:
        """Return whether all weights are finite.

        Raises:
            DivergenceError: If they are not, and ``task.on_nonfinite`` is not ``warn``.
        """
        name = name_nonfinite(task)
        if name is not None:
            told = (
                f"the weights are not finite after step {trainer.global_step} "
                f"({name}; learning rate {self._learning_rate:g})"
            )
            self._act(task, told, skipped=False)
        return name is None

    def _check_mean(self, trainer: Trainer, task: Any, name: str) -> None:
        value = float(trainer.callback_metrics.get(name, 0.0))
        if not math.isfinite(value):
            self._act(task, f"{name} is {value:g} after step {trainer.global_step}", skipped=False)

    def _act(self, task: Any, told: str, skipped: bool = True) -> None:
        if task.on_nonfinite == "stop" or (task.on_nonfinite == "skip" and not skipped):
            raise DivergenceError(f"training diverged: {told}; {WAY_OUT}{OTHERS[task.on_nonfinite]}")
        if not self._warned:
            self._warned = True
            log.warning("training diverged: %s; it goes on, as task.on_nonfinite=%s says", told, task.on_nonfinite)


def gradient_norm(module: nn.Module) -> float:
    """Return the norm of all gradients; NaN or infinity if one of them is not finite, 0 if there are none."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    return float(get_total_norm(gradients)) if gradients else 0.0


def may_save(trainer: Trainer, path: Any) -> bool:
    """Return whether the weights may be saved: weights that are not finite never replace a healthy checkpoint.

    Raises:
        DivergenceError: If they are not finite, and ``task.on_nonfinite`` is not ``warn``.
    """
    guards = [c for c in trainer.callbacks if isinstance(c, DivergenceGuard)]  # type: ignore[attr-defined]
    if all(guard.check_weights(trainer, trainer.lightning_module) for guard in guards):
        return True
    log.warning("the weights are not finite and are not saved; %s is kept as it was", getattr(path, "name", path))
    return False
