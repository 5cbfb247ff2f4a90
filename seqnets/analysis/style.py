"""Defines how plots look: one color per cell, few lines."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

CELLS = {"rnn_tanh": "#9a6fb0", "rnn_relu": "#c2504f", "gru": "#3a8f7b", "lstm": "#3b6fb6"}
OTHERS = ("#d9822b", "#6b6b6b", "#b59f3b", "#7f4f2a")


def color(name: str, number: int = 0) -> str:
    """Return the color of a cell by its name, and that of anything else by its number."""
    return CELLS.get(name, OTHERS[number % len(OTHERS)])


def new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")  # no pyplot: no display, no global state


def plain(axes: Axes, grid: str = "y") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.92")  # type: ignore[arg-type]
    axes.set_axisbelow(True)
