"""Classifies sequences (many to one)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Accuracy, Metric

from seqnets.data.batch import Batch
from seqnets.errors import ConfigError
from seqnets.tasks.metrics import Mean
from seqnets.tasks.task import MakesOptimizer, MakesScheduler, Prediction, Task


class Classification(Task):
    """Trains a model that returns logits with cross-entropy, and measures its accuracy.

    Args:
        model: maps ``Batch.inputs`` to logits, ``(B,)`` for two classes (binary cross-entropy), else
            ``(B, num_classes)``.
        num_classes: the number of classes.
        optimizer, scheduler, on_nonfinite: as `Task` takes them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakesOptimizer,
        num_classes: int = 2,
        scheduler: MakesScheduler | None = None,
        on_nonfinite: str = "stop",
    ) -> None:
        super().__init__(model, optimizer, scheduler, on_nonfinite)
        self.num_classes = num_classes
        self.binary = num_classes == 2

    def metrics(self) -> dict[str, Metric]:
        kind: dict[str, Any] = (
            {"task": "binary"} if self.binary else {"task": "multiclass", "num_classes": self.num_classes}
        )
        return {"loss": Mean(), "accuracy": Accuracy(**kind)}

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs)

    def loss(self, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        logits = self(batch.inputs).float()
        if self.binary:
            return F.binary_cross_entropy_with_logits(logits, batch.targets.float()), logits
        return F.cross_entropy(logits, batch.targets), logits

    def update(self, metrics: Any, loss: Tensor, found: Tensor, batch: Batch) -> None:
        super().update(metrics, loss, found, batch)
        metrics["accuracy"].update(self._predicted(found), batch.targets)

    def of_step(self, loss: Tensor, found: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"loss": loss, "accuracy": (self._predicted(found) == batch.targets).float().mean()}

    def _predicted(self, logits: Tensor) -> Tensor:
        return (logits > 0).long() if self.binary else logits.argmax(-1)

    def probabilities(self, inputs: Tensor) -> Tensor:
        """Return the class probabilities ``(B, num_classes)``."""
        logits = self(inputs).float()
        if self.binary:
            positive = logits.sigmoid()
            return torch.stack([1 - positive, positive], dim=-1)
        return logits.softmax(-1)

    def check(self, data: Any) -> None:
        probabilities = self.probabilities(self.example(data).inputs)
        if probabilities.shape != (1, len(data.labels)):
            raise ConfigError(
                f"model.net and task give probabilities {tuple(probabilities.shape)} for one example, "
                f"but the data have the {len(data.labels)} labels {', '.join(data.labels)}; "
                f"set model.net.num_classes={len(data.labels)}"
            )

    def read(self, encoder: Any, given: str) -> dict[str, list[str]]:
        labels, front = super().read(encoder, given)[""], getattr(self.model, "front", None)
        if front is None:
            return {"": labels}
        windows = [labels[start:stop] for start, stop in front.windows(len(labels))]
        return {"": [" ".join(word for word in window if word) for window in windows]}

    def predict(self, encoder: Any, labels: Sequence[str], given: Sequence[str], **options: Any) -> list[Prediction]:
        rows = torch.cat([self.probabilities(inputs) for inputs in encoder.encode(list(given)).split(64)])
        width = max(map(len, labels))
        predictions = []
        for one, row in zip(given, rows, strict=True):
            probability, label = float(row.max()), labels[int(row.argmax())]
            fields = {"label": label, "probability": round(probability, 6), "text": one}
            predictions.append(Prediction(f"{label:{width}}  {probability:.4f}  {one}", fields))
        return predictions
