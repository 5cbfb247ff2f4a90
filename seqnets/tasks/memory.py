"""Provides tasks that measure long memory: a number per sequence, or symbols recalled at its end."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from seqnets.data.batch import Batch
from seqnets.errors import ConfigError
from seqnets.tasks.metrics import Mean
from seqnets.tasks.task import Task


class Regression(Task):
    """Trains a model that returns ``(B, K)`` for targets ``(B, K)`` with the mean squared error.

    The arguments are those of `Task`.
    """

    def loss(self, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        found = self.model(batch.inputs).float()
        if found.shape != batch.targets.shape:
            raise ConfigError(
                f"model.net gives {tuple(found.shape)} for targets {tuple(batch.targets.shape)}; "
                "set model.net.out_features"
            )
        return F.mse_loss(found, batch.targets.float()), found.detach()


class Recall(Task):
    """Trains a model that returns logits ``(B, T, V)`` for targets ``(B, T)`` with the cross-entropy per step, in nats.

    The accuracy is that of the steps whose target is not blank (0). The arguments are those of `Task`.
    """

    def metrics(self) -> dict[str, Metric]:
        return {"loss": Mean(), "accuracy": Mean()}

    def loss(self, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        logits = self.model(batch.inputs).float()
        return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()), logits.detach()

    def update(self, metrics: Any, loss: Tensor, found: Tensor, batch: Batch) -> None:
        super().update(metrics, loss, found, batch)
        metrics["accuracy"].update(_recalled(found, batch.targets))

    def of_step(self, loss: Tensor, found: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"loss": loss, "accuracy": _recalled(found, batch.targets).mean()}


def _recalled(logits: Tensor, targets: Tensor) -> Tensor:
    """Return, for each step whose target is not blank, 1 if the target is the likeliest symbol, else 0."""
    return (logits.argmax(-1) == targets)[targets != 0].float()
