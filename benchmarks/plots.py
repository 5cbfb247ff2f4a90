"""Plots a run, each plot as PNG and SVG. A plot that has nothing to show is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import LayerCase
from benchmarks.results import OURS, Figures, figures
from benchmarks.tables import by_case

# one color per contender, the same in every plot
COLORS = {
    "seqnets": "#d62728", "seqnets-reference": "#7f7f7f", "seqnets-aten": "#ff9896", "seqnets-cpp": "#e377c2",
    "seqnets-triton": "#8c564b", "torch.nn": "#1f77b4", "torch.compile": "#17becf", "torch.compile-step": "#9edae5",
    "keras": "#2ca02c", "flax": "#98df8a", "onnxruntime": "#9467bd", "flashrnn": "#bcbd22",
}  # fmt: skip
MOST_PANELS = 8

Panel = tuple[str, list[tuple[int, dict[str, Figures]]]]  # title; value on the x axis and what was measured there


def plot_all(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Plot what the run has, and return the PNG files."""
    import matplotlib

    matplotlib.use("Agg")
    every = [f for f in figures(results) if isinstance(f.case, LayerCase)]
    layer = by_case(f for f in every if f.case.suite == "layer" and f.seconds)
    memory = by_case(f for f in every if f.case.suite == "memory" and f.peak_mb is not None)
    latency = by_case(f for f in every if f.case.suite == "latency" and f.seconds)
    subtitle = f"{results['environment']['device']}, PyTorch {results['environment']['torch']}"
    drawn: list[Path | None] = []
    for name in ("H", "B"):
        drawn.append(
            _lines(
                _panels(layer, name),
                name,
                "µs per time step",
                _per_step,
                folder / f"time_against_{name}",
                subtitle,
                log=True,
            )
        )
    drawn.append(
        _lines(_panels(memory, "T"), "T", "MB at the peak", _peak, folder / "memory_against_T", subtitle, log=False)
    )
    for mode in ("train", "infer"):
        of_mode = {case: found for case, found in layer.items() if isinstance(case, LayerCase) and case.mode == mode}
        drawn.append(_heat(of_mode, mode, folder / f"speed_up_{mode}", subtitle))
    drawn.append(_heat(latency, "one step", folder / "speed_up_step", subtitle))
    return [path for path in drawn if path is not None]


def _per_step(f: Figures) -> tuple[float, float, float] | None:
    if f.seconds is None or not isinstance(f.case, LayerCase):
        return None
    scale = 1e6 / f.case.T
    return f.seconds.median * scale, f.seconds.p20 * scale, f.seconds.p80 * scale


def _peak(f: Figures) -> tuple[float, float, float] | None:
    return None if f.peak_mb is None else tuple(f.peak_mb)  # type: ignore[return-value]


def _panels(cases: Mapping[Any, dict[str, Figures]], name: str) -> list[Panel]:
    """Group cases that differ only in `name` into panels; for H, also those that differ in H and in I with it.

    Returns:
        At most `MOST_PANELS` panels, those with most points first.
    """
    panels: list[Panel] = []
    left = {case: found for case, found in cases.items() if not case.shape}
    for tied in (False, True) if name == "H" else (False,):
        groups: dict[str, list[Any]] = {}
        for case in left:
            if not tied or case.I == case.H:
                groups.setdefault(_title(case, name, tied), []).append(case)
        for title, alike in groups.items():
            if len(alike) > 1:
                panels.append(
                    (title, sorted(((getattr(case, name), left[case]) for case in alike), key=lambda point: point[0]))
                )
        left = {case: left[case] for alike in groups.values() if len(alike) == 1 for case in alike}
    return sorted(panels, key=lambda panel: -len(panel[1]))[:MOST_PANELS]


def _title(case: LayerCase, name: str, tied: bool) -> str:
    """Return what the cases of a panel have in common, in words."""
    kind = case.cell.rpartition(":")[2]
    kind += (" bidirectional" if case.bidirectional else "") + (" ragged" if case.ragged else "")
    sizes = {"T": case.T, "B": case.B, "I": "H" if tied else case.I, "H": case.H}
    del sizes[name]
    title = f"{kind} {case.mode}, {', '.join(f'{n}={v}' for n, v in sizes.items())}"
    title += f", {case.layers} layers" if case.layers > 1 else ""
    return title + (f", {case.dtype}" if case.dtype != "fp32" else "")


def _lines(
    panels: Sequence[Panel],
    name: str,
    what: str,
    value: Callable[[Figures], tuple[float, float, float] | None],
    path: Path,
    subtitle: str,
    log: bool,
) -> Path | None:
    if not panels:
        return None
    import matplotlib.pyplot as plt

    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6 * columns, 3.6 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (title, points) in zip(axes.flat, panels, strict=False):
        for contender in _in_order(n for _, found in points for n in found):
            told = [(x, v) for x, found in points if contender in found and (v := value(found[contender]))]
            xs, medians, lows, highs = [x for x, _ in told], *([v[k] for _, v in told] for k in range(3))
            axis.plot(
                xs,
                medians,
                "o-",
                color=COLORS[contender],
                label=contender,
                linewidth=2.5 if contender == OURS else 1.2,
            )
            axis.fill_between(xs, lows, highs, color=COLORS[contender], alpha=0.15, linewidth=0)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(name)
        axis.set_ylabel(what)
        axis.set_xscale("log", base=2)
        axis.set_xticks([x for x, _ in points], [str(x) for x, _ in points])
        axis.minorticks_off()
        if log:
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(f"{subtitle}; bands: 20th to 80th percentile", fontsize=8)
    return _save(figure, path)


def _heat(cases: Mapping[Any, dict[str, Figures]], what: str, path: Path, subtitle: str) -> Path | None:
    """Plot how many times as fast seqnets is (above 1 blue, below 1 red), and return the PNG file or None."""
    names = [n for n in _in_order(n for found in cases.values() for n in found) if n != OURS]
    rows = {case: found for case, found in cases.items() if any(f.ratio for n, f in found.items() if n != OURS)}
    if not rows or not names:
        return None
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.colors import TwoSlopeNorm

    ratios = np.full((len(rows), len(names)), np.nan)
    for i, found in enumerate(rows.values()):
        for j, name in enumerate(names):
            if name in found and (ratio := found[name].ratio) is not None:
                ratios[i, j] = math.log2(ratio.median)
    figure, axis = plt.subplots(figsize=(4.5 + 0.9 * len(names), 1.6 + 0.26 * len(rows)), layout="constrained")
    image = axis.imshow(np.clip(ratios, -2, 4), aspect="auto", cmap="RdBu", norm=TwoSlopeNorm(0, -2, 4))
    for (i, j), value in np.ndenumerate(ratios):
        told = "-" if np.isnan(value) else f"{2**value:.2g}" if value < 3.3 else f"{2**value:.0f}"
        axis.text(
            j, i, told, ha="center", va="center", fontsize=7, color="white" if value > 2.6 or value < -1.2 else "black"
        )
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    axis.set_yticks(range(len(rows)), [_label(case) for case in rows], fontsize=7)
    bar = figure.colorbar(image, ticks=[-2, -1, 0, 1, 2, 3, 4])
    bar.ax.set_yticklabels(["¼", "½", "1", "2", "4", "8", "16"])
    axis.set_title(f"{what}: how many times as fast seqnets is\n{subtitle}", fontsize=9)
    return _save(figure, path)


def _label(case: LayerCase) -> str:
    return (
        str(case)
        .replace(f" {case.mode}", "")
        .replace(" layers=2 bidirectional", " 2x bi")
        .replace(" bidirectional", " bi")
    )


def _in_order(names: Iterable[str]) -> list[str]:
    found = set(names)
    return [name for name in COLORS if name in found]


def _save(figure: Any, path: Path) -> Path:
    import matplotlib.pyplot as plt

    for ending in (".svg", ".png"):
        figure.savefig(path.with_suffix(ending), dpi=130)
    plt.close(figure)
    return path.with_suffix(".png")
