"""Plots a series, a model's forecast of its test period, and the forecasts of simpler baselines."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from seqnets.analysis.style import new_figure, plain

log = logging.getLogger(__name__)

SERIES, MODEL = "#3a3a3a", "#d9822b"
RIVALS = ("#9a9a9a", "#7db07d", "#3b6fb6")
BEFORE = 2  # seasons shown before the test period, in the lower panel


class ForecastPlot(Callback):
    """Plots ``forecast.png`` after the test: the series with its splits above, the test period with forecasts below.

    If the horizon is more than one step, the forecast shown for a time is the one made that many steps before.

    Args:
        folder: the folder of the picture.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        windows = data.test_dataloader().dataset.inputs
        task: Any = pl_module
        forecasts = {"model": task.forecast(windows, data.horizon)}
        forecasts |= {name: rival(windows.squeeze(-1)) for name, rival in task.baselines(data).items()}
        figures = trainer.callback_metrics
        drawn = {}
        for name, values in forecasts.items():
            rmse = figures["test/rmse" if name == "model" else f"test/rmse_{name}"]
            drawn[f"{name}, RMSE {float(rmse):.1f}"] = data.encoder.unscale(values[:, -1].cpu())
        picture = self.folder / "forecast.png"
        plot_forecasts(data.times, data.values, data.bounds, drawn, picture, data.horizon, data.season)
        log.info("drew forecast.png")


def plot_forecasts(
    times: Sequence[str],
    values: Tensor,
    bounds: Mapping[str, tuple[int, int]],
    forecasts: Mapping[str, Tensor],
    picture: Path,
    horizon: int = 1,
    season: int = 11,
) -> None:
    """Plot a series ``(N,)`` and the forecasts of its end as a PNG; `forecasts` are by label, the model's first."""
    figure = new_figure(10, 6.6)
    whole, end = figure.subplots(2, 1, height_ratios=(1, 1.7))
    try:
        x = [float(time) for time in times]
    except ValueError:  # dates and the like: number the steps
        x = [float(step) for step in range(len(times))]
    whole.plot(x, values, color=SERIES, linewidth=0.9)
    for name, (start, stop) in bounds.items():
        if start:
            whole.axvline(x[start], color="0.6", linewidth=0.8, linestyle=":")
        middle = (x[start] + x[stop - 1]) / 2
        whole.annotate(name, (middle, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", color="0.35")
    test = bounds["test"][0]
    first = max(0, test - BEFORE * season)
    end.plot(
        x[first:], values[first:], color=SERIES, linewidth=1.6, marker="o", markersize=3, label="measured", zorder=2
    )
    for (label, forecast), color in zip(forecasts.items(), (MODEL, *RIVALS), strict=True):
        style = (
            {"linewidth": 2.0, "zorder": 3} if color == MODEL else {"linewidth": 1.1, "linestyle": "--", "zorder": 1}
        )
        end.plot(x[len(x) - len(forecast) :], forecast, color=color, label=label, **style)
    end.axvline(x[test], color="0.6", linewidth=0.8, linestyle=":")
    ahead = "one step" if horizon == 1 else f"{horizon} steps"
    end.set_title(f"the test period, forecast {ahead} ahead", loc="left", fontsize=11)
    end.legend(frameon=False, fontsize=9, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    for axes, left in ((whole, x[0]), (end, x[first])):
        axes.set(ylabel="value", xlim=(left, x[-1]))
        plain(axes)
    figure.savefig(picture, dpi=150)
