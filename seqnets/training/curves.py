"""Plots the learning curves of a run from its metrics.csv."""

import re
from collections import defaultdict
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from seqnets.analysis.style import new_figure, plain

TRAIN, VAL, TEST = "#3b6fb6", "#d9822b", "#3a3a3a"
METRIC = re.compile(r"(train|val|test)/(\w+?)(_step|_epoch)?$")


def plot_curves(metrics: Path, picture: Path, title: str) -> None:
    """Plot every metric in `metrics` (Lightning's CSV): training by step (smoothed) and by epoch, validation and test.

    Writes `picture` (PNG), or nothing if no training was logged.
    """
    table = pd.read_csv(metrics)
    columns: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)  # metric -> (split, _step | _epoch) -> column
    for column in table.columns:
        if match := METRIC.match(column):
            split, metric, kind = match.groups()
            by_step = split == "train" and f"{column}_step" not in table
            columns[metric][split, kind or ("_step" if by_step else "_epoch")] = column
    drawn = [metric for metric in ("loss", *sorted(set(columns) - {"loss"})) if _has_training(columns[metric])]
    if not drawn:
        return
    figure = new_figure(5.2 * len(drawn), 4.0)
    figure.suptitle(title, fontsize=12)
    epoch_ends = table.loc[table["epoch"].diff(-1) < 0, "step"].tolist() if "epoch" in table else []
    for metric, axes in zip(drawn, figure.subplots(1, len(drawn), squeeze=False)[0], strict=True):
        _draw(axes, table, columns[metric], metric, epoch_ends)
    figure.savefig(picture, dpi=150)


def _has_training(series: dict[tuple[str, str], str]) -> bool:
    return any(split == "train" for split, _ in series)


def _draw(axes: Axes, table: pd.DataFrame, series: dict[tuple[str, str], str], metric: str, epoch_ends: list) -> None:
    def points(split: str, kind: str) -> pd.Series:
        column = series.get((split, kind))
        return table.set_index("step")[column].dropna() if column else pd.Series(dtype=float)

    steps = points("train", "_step")
    if len(steps):
        axes.plot(steps.index, steps, color=TRAIN, alpha=0.2, linewidth=0.8)
        smooth = steps.ewm(halflife=max(1.0, len(steps) / 40)).mean()
        axes.plot(smooth.index, smooth, color=TRAIN, linewidth=1.8, label="train, smoothed")
    for split, color, marker in (("train", TRAIN, "o"), ("val", VAL, "s")):
        epochs = points(split, "_epoch")
        if len(epochs):
            label = "train, mean of the epoch" if split == "train" else "validation"
            axes.plot(
                epochs.index, epochs, color=color, marker=marker, markersize=6, label=label, markeredgecolor="white",
                linestyle="-" if split == "val" else "none", zorder=3,
            )  # fmt: skip
    test = points("test", "_epoch")
    if len(test):
        axes.axhline(test.iloc[-1], color=TEST, linewidth=0.8, linestyle=":", zorder=1)
        axes.plot(
            test.index[-1:], test.iloc[-1:], color=TEST, marker="*", markersize=13, linestyle="none", zorder=4,
            label=f"test {test.iloc[-1]:.4f}", markeredgecolor="white",
        )  # fmt: skip
    for end in epoch_ends:
        axes.axvline(end, color="0.85", linewidth=0.8, zorder=0)
    axes.set(xlabel="step", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    axes.legend(frameon=False, fontsize=9)
