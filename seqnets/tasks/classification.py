"""Classification of sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Accuracy

from seqnets.data.batch import Batch


class Classification(LightningModule):
    """Cross-entropy and accuracy for a model that gives logits.

    Args:
        model: maps ``Batch.inputs`` to logits ``(B,)`` for two classes (binary cross-entropy), else ``(B, num_classes)``.
        optimizer: makes the optimiser of the parameters, such as ``partial(torch.optim.Adam, lr=1e-3)``.
        num_classes: number of classes.

    Logs loss and accuracy: ``train/loss_step`` and so on by step, ``train/loss_epoch`` by epoch, and ``val/loss`` and
    ``test/loss`` over the whole part.
    """

    def __init__(
        self, model: nn.Module, optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer], num_classes: int = 2
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer = optimizer
        self.binary = num_classes == 2
        options: dict[str, Any] = (
            {"task": "binary"} if self.binary else {"task": "multiclass", "num_classes": num_classes}
        )
        self.accuracy = nn.ModuleDict(
            {part: Accuracy(**options, validate_args=False) for part in ("fit", "val", "test")}
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs)

    def probabilities(self, inputs: Tensor) -> Tensor:
        """``(B, num_classes)``."""
        logits = self(inputs).float()
        if self.binary:
            positive = logits.sigmoid()
            return torch.stack([1 - positive, positive], dim=-1)
        return logits.softmax(-1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, logits = self._loss(batch)
        accuracy: Any = self.accuracy["fit"]
        accuracy(logits, batch.targets)
        for name, value in (("train/loss", loss), ("train/accuracy", accuracy)):
            self.log(name, value, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(batch.targets))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters())

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = self(batch.inputs).float()
        if self.binary:
            return F.binary_cross_entropy_with_logits(logits, batch.targets.float()), logits
        return F.cross_entropy(logits, batch.targets), logits

    def _evaluate(self, part: str, batch: Batch) -> None:
        loss, logits = self._loss(batch)
        accuracy: Any = self.accuracy[part]
        accuracy.update(logits, batch.targets)
        self.log(f"{part}/loss", loss, on_epoch=True, batch_size=len(batch.targets), prog_bar=part == "val")
        self.log(f"{part}/accuracy", accuracy, on_epoch=True, prog_bar=part == "val")
