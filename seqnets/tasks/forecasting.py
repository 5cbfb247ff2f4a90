"""Forecasts the values that follow a window of a series (many to one)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

from seqnets.data.batch import Batch
from seqnets.errors import ConfigError
from seqnets.tasks.baselines import Forecast, autoregression, persistence, seasonal
from seqnets.tasks.metrics import Mean
from seqnets.tasks.task import MakesOptimizer, MakesScheduler, Prediction, Task


class Forecasting(Task):
    """Trains a model that forecasts the next values, ``(B, T, 1)`` -> ``(B, horizon)``, with the mean squared error.

    The values are in scaled units, and so is the loss. The metrics ``rmse`` and ``mae`` are in the units of the data.
    The test also measures what a forecast has to beat, as ``test/rmse_persistence`` and so on: the last value, the
    value a season before, and an autoregression fitted by least squares to the training values. All see the same
    windows. This task needs the data module `Series`, which has the units.

    Args:
        model, optimizer, scheduler, on_nonfinite: as `Task` takes them.
        order: the order of the autoregression.
    """

    options = {"length": "steps to forecast, each from those before"}  # noqa: RUF012  of the base class

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakesOptimizer,
        order: int = 9,
        scheduler: MakesScheduler | None = None,
        on_nonfinite: str = "stop",
    ) -> None:
        super().__init__(model, optimizer, scheduler, on_nonfinite)
        self.order = order

    def metrics(self) -> dict[str, Metric]:
        return {"loss": Mean(), "rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError()}

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs)

    def loss(self, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        forecast = self(batch.inputs).float()
        if forecast.shape != batch.targets.shape:
            raise ValueError(
                f"the model gives {tuple(forecast.shape)} where {tuple(batch.targets.shape)} follow; "
                "set model.net.out_features to data.horizon"
            )
        return F.mse_loss(forecast, batch.targets.float()), forecast.detach()

    def update(self, metrics: Any, loss: Tensor, found: Tensor, batch: Batch) -> None:
        super().update(metrics, loss, found, batch)
        std = self.trainer.datamodule.encoder.std  # type: ignore[attr-defined]
        for name in ("rmse", "mae"):
            metrics[name].update(found * std, batch.targets * std)

    def baselines(self, data: Any) -> dict[str, Forecast]:
        """Return the baselines by name, for windows of `Series` in scaled units."""
        train = data.encoder.scale(data.train_values)
        return {
            "persistence": persistence(data.horizon),
            "seasonal": seasonal(data.horizon, data.season),
            f"ar{self.order}": autoregression(train, self.order, data.horizon),
        }

    def check(self, data: Any) -> None:
        super().check(data)
        if not 0 < self.order <= data.window:
            raise ConfigError(f"task.order is {self.order}, but must be from 1 to data.window, {data.window}")
        try:
            self.baselines(data)
        except ValueError as error:
            raise ConfigError(f"task.order={self.order} does not fit the data: {error}") from error

    def on_test_start(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self._rivals = self.baselines(data)
        self._of_rivals = {
            f"{figure}_{name}": metric.to(self.device)
            for name in self._rivals
            for figure, metric in self.metrics().items()
            if figure != "loss"
        }

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        std = self.trainer.datamodule.encoder.std  # type: ignore[attr-defined]
        for name, rival in self._rivals.items():
            forecast = rival(batch.inputs.squeeze(-1))
            for figure in ("rmse", "mae"):
                self._of_rivals[f"{figure}_{name}"].update(forecast * std, batch.targets * std)

    def on_test_epoch_end(self) -> None:
        self.log_dict({f"test/{name}": metric.compute() for name, metric in self._of_rivals.items()})

    @torch.no_grad()
    def forecast(self, windows: Tensor, length: int) -> Tensor:
        """Forecast the next ``length`` values ``(B, length)`` after windows ``(B, T, 1)``, all in scaled units.

        Later values build on the forecasts of earlier ones.
        """
        values = windows
        while values.shape[1] < windows.shape[1] + length:
            following = self(values[:, -windows.shape[1] :].to(next(self.parameters()))).float().to(values)
            values = torch.cat([values, following.unsqueeze(-1)], dim=1)
        return values[:, windows.shape[1] :][:, :length].squeeze(-1)

    def predict(self, encoder: Any, labels: Sequence[str], given: Sequence[str], **options: Any) -> list[Prediction]:
        """Forecast the values after each line of numbers.

        The option ``length`` is the number of values; None for as many as the model forecasts at once.

        Raises:
            ValueError: If a line cannot be encoded, or ``length`` is below 1.
        """
        length = options.get("length")
        if length is not None and length < 1:
            raise ValueError(f"length is {length}, but must be 1 at least")
        windows = encoder.encode(list(given))
        rows = encoder.unscale(self.forecast(windows, self(windows).shape[1] if length is None else length))
        predictions = []
        for line, row in zip(given, rows.tolist(), strict=True):
            predictions.append(Prediction(" ".join(f"{value:.1f}" for value in row), {"forecast": row, "given": line}))
        return predictions
