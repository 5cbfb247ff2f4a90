"""Provides the baselines that a forecast has to beat.

Each maps the past ``(B, T)`` to the next ``horizon`` values ``(B, horizon)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Forecast = Callable[[Tensor], Tensor]


def persistence(horizon: int) -> Forecast:
    """Return the baseline that repeats the last value."""
    return lambda past: past[:, -1:].expand(-1, horizon)


def seasonal(horizon: int, season: int) -> Forecast:
    """Return the baseline that repeats the last season.

    A value is forecast as the one ``season`` steps before it or, where that is not in the past yet, a whole number of
    seasons before.
    """
    return lambda past: past[:, [k % season - season for k in range(horizon)]]


def autoregression(series: Tensor, order: int, horizon: int) -> Forecast:
    """Fit an autoregression AR(p) to a series, and return it as a baseline.

    ``x_t = c + Σ_i a_i x_{t-i}`` is fitted by least squares. Forecasts of later steps build on those of earlier steps.

    Args:
        series: the series ``(N,)``.
        order: p.
        horizon: the number of steps to forecast.

    Raises:
        ValueError: If the series is too short for the order.
    """
    if len(series) < 2 * order + 1:
        raise ValueError(
            f"an autoregression of order {order} needs {2 * order + 1} values to be fitted, got {len(series)}"
        )
    windows = series.double().unfold(0, order + 1, 1)
    design = torch.cat([torch.ones(len(windows), 1, dtype=torch.float64), windows[:, :-1]], dim=1)
    constant, *weights = torch.linalg.lstsq(design, windows[:, -1:]).solution.flatten()
    oldest_first = torch.stack(weights)

    def forecast(past: Tensor) -> Tensor:
        values = past[:, -order:].cpu().double()
        for _ in range(horizon):
            following = constant + values[:, -order:] @ oldest_first
            values = torch.cat([values, following[:, None]], dim=1)
        return values[:, order:].to(past)

    return forecast
