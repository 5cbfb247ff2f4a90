"""A series, what a model forecast of its test period, and what simpler forecasts made of it."""

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

log = logging.getLogger(__name__)

SERIES, MODEL = "#3a3a3a", "#d9822b"
RIVALS = ("#9a9a9a", "#7db07d", "#3b6fb6")
BEFORE = 2  # seasons shown before the test period, in the picture of that alone


class ForecastPlot(Callback):
    """After the test draws ``forecast.png``: the series with its splits above; below the test period, model and baselines.

    Where the horizon is more than one step, what is drawn of a time is the forecast made that many steps before.

    Args:
        folder: where to.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        windows = data.test_dataloader().dataset.inputs
        task: Any = pl_module
        forecasts = {"model": task.forecast(windows, data.horizon)}
        forecasts |= {name: rival(windows.squeeze(-1)) for name, rival in task.baselines(data).items()}
        rmse = {name: trainer.callback_metrics.get(f"test/rmse_{name}") for name in forecasts}
        rmse["model"] = trainer.callback_metrics.get("test/rmse")
        drawn = {}
        for name, values in forecasts.items():
            figure = rmse[name]
            label = name if figure is None else f"{name}, RMSE {float(figure):.1f}"
            drawn[label] = data.encoder.unscale(values[:, -1])
        draw_forecasts(
            data.times, data.values, data.starts, drawn, self.folder / "forecast.png", data.horizon, data.season
        )
        log.info("drew forecast.png")


def draw_forecasts(
    times: list[str],
    values: Tensor,
    starts: dict[str, int],
    forecasts: dict[str, Tensor],
    picture: Path,
    horizon: int = 1,
    season: int = 11,
) -> None:
    """Draw a series and the forecasts of its end, by label, the model's first, as a PNG."""
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    whole, end = figure.subplots(2, 1, height_ratios=(1, 1.7))
    try:
        x = torch.tensor([float(time) for time in times])
    except ValueError:  # dates and the like: by number
        x = torch.arange(float(len(times)))
    whole.plot(x, values, color=SERIES, linewidth=0.9)
    edges = list(starts.items())
    for (name, start), (_, stop) in zip(edges[:-1], edges[1:], strict=True):
        if start:
            whole.axvline(float(x[start]), color="0.6", linewidth=0.8, linestyle=":")
        middle = float(x[start] + x[stop - 1]) / 2
        whole.annotate(name, (middle, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", color="0.35")
    first = max(0, starts["test"] - BEFORE * season)
    end.plot(x[first:], values[first:], color=SERIES, linewidth=1.6, marker="o", markersize=3, label="measured")
    for (label, forecast), colour in reversed(list(zip(forecasts.items(), (MODEL, *RIVALS), strict=True))):
        ours = colour == MODEL
        end.plot(
            x[len(x) - len(forecast) :], forecast, color=colour, label=label, linewidth=2.0 if ours else 1.1,
            linestyle="-" if ours else "--", zorder=3 if ours else 2,
        )  # fmt: skip
    end.axvline(float(x[starts["test"]]), color="0.6", linewidth=0.8, linestyle=":")
    ahead = "one step" if horizon == 1 else f"{horizon} steps"
    end.set_title(f"the test period, forecast {ahead} ahead", loc="left", fontsize=11)
    end.legend(frameon=False, fontsize=9, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.1))
    for axes in (whole, end):
        _plain(axes)
    whole.set_xlim(float(x[0]), float(x[-1]))
    end.set_xlim(float(x[first]), float(x[-1]))
    figure.savefig(picture, dpi=150)


def _plain(axes: Axes) -> None:
    axes.grid(axis="y", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
