"""Classification of sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Accuracy, MeanMetric

from seqnets.data.batch import Batch

PARTS = ("fit", "val", "test")  # "train" is a method of every module


class Classification(LightningModule):
    """Cross-entropy and accuracy for a model that gives logits.

    Args:
        model: maps ``Batch.inputs`` to logits ``(B,)`` for two classes (binary cross-entropy), else ``(B, num_classes)``.
        optimizer: makes the optimiser of the parameters, such as ``partial(torch.optim.Adam, lr=1e-3)``.
        num_classes: number of classes.
        scheduler: makes the schedule of the learning rate from the optimiser, stepped after each training step.

    Logs ``train/loss_step`` and ``train/accuracy_step``, those of one batch, every ``log_every_n_steps``, and the means
    over all examples ``train/loss``, ``train/accuracy``, ``val/…`` and ``test/…`` by epoch.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
        num_classes: int = 2,
        scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer, self.scheduler = optimizer, scheduler
        self.binary = num_classes == 2
        options: dict[str, Any] = (
            {"task": "binary"} if self.binary else {"task": "multiclass", "num_classes": num_classes}
        )
        self.means = nn.ModuleDict(
            {part: nn.ModuleDict({"loss": MeanMetric(), "accuracy": Accuracy(**options)}) for part in PARTS}
        )

    @property
    def logged(self) -> list[str]:
        """The names of all metrics."""
        names = [f"{part}/{name}" for part in ("train", "val", "test") for name, _ in self._fit_means()]
        return [*names, "train/loss_step", "train/accuracy_step"]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs)

    def probabilities(self, inputs: Tensor) -> Tensor:
        """``(B, num_classes)``."""
        logits = self(inputs).float()
        if self.binary:
            positive = logits.sigmoid()
            return torch.stack([1 - positive, positive], dim=-1)
        return logits.softmax(-1)

    def on_train_start(self) -> None:
        self._logged_epoch = -1

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, logits = self._loss(batch)
        means = self._update("fit", loss, logits, batch)
        # logging costs more than the metrics themselves: only where something is kept
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            self.log("train/loss_step", loss, prog_bar=True)
            self.log("train/accuracy_step", (self._predicted(logits) == batch.targets).float().mean(), prog_bar=True)
        # once an epoch: Lightning asks the metrics themselves when it ends, if cut short too
        if self._logged_epoch != self.current_epoch:
            self._logged_epoch = self.current_epoch
            self._log_means("train", means)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss, logits = self._loss(batch)
        self._log_means("val", self._update("val", loss, logits, batch), prog_bar=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        loss, logits = self._loss(batch)
        self._log_means("test", self._update("test", loss, logits, batch))

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.scheduler(optimizer), "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if not self.trainer.is_last_batch:  # in mid-epoch its means go on after a resume; at its end they are done with
            checkpoint["train_means"] = {name: metric.metric_state for name, metric in self._fit_means()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get("train_means", {})
        for name, metric in self._fit_means():
            for state, value in states.get(name, {}).items():
                setattr(metric, state, value.to(self.device))

    def _fit_means(self) -> Any:
        return self.means["fit"].items()  # type: ignore[operator]

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = self(batch.inputs).float()
        if self.binary:
            return F.binary_cross_entropy_with_logits(logits, batch.targets.float()), logits
        return F.cross_entropy(logits, batch.targets), logits

    def _predicted(self, logits: Tensor) -> Tensor:
        return (logits > 0).long() if self.binary else logits.argmax(-1)

    def _update(self, part: str, loss: Tensor, logits: Tensor, batch: Batch) -> Any:
        means: Any = self.means[part]
        means["loss"].update(loss.detach(), weight=len(batch.targets))
        means["accuracy"].update(self._predicted(logits), batch.targets)
        return means

    def _log_means(self, part: str, means: Any, prog_bar: bool = False) -> None:
        for name, metric in means.items():
            self.log(f"{part}/{name}", metric, on_step=False, on_epoch=True, prog_bar=prog_bar)
