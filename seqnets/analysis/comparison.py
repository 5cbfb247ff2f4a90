"""Plots the jobs of a sweep side by side."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from seqnets.analysis.jobs import Job, by_seed
from seqnets.analysis.style import color, new_figure, plain


class Bars:
    """Plots ``sweep.png``: a panel for each test metric, the seconds per epoch and the number of parameters.

    A bar stands for all jobs that differ only in the seed. It shows their mean, with a dot for each job.
    """

    def __call__(self, folder: Path, jobs: Sequence[Job]) -> None:
        groups = by_seed(jobs)
        if not groups:
            return
        names = list(dict.fromkeys(name for members in groups.values() for job in members for name in job.metrics()))
        picture = new_figure(3.1 * len(names), 1.4 + 0.45 * len(groups))
        for panel, (axes, name) in enumerate(
            zip(picture.subplots(1, len(names), squeeze=False)[0], names, strict=True)
        ):
            for row, (group, members) in enumerate(groups.items()):
                values = [job.metrics().get(name, float("nan")) for job in members]
                axes.barh(row, statistics.fmean(values), color=color(group.rsplit("=", 1)[-1], row), height=0.62)
                if len(values) > 1 and name != "parameters":
                    axes.plot(values, [row] * len(values), "o", color="#222222", markersize=3, alpha=0.7)
            axes.set_yticks(range(len(groups)), list(groups) if panel == 0 else [""] * len(groups))
            axes.invert_yaxis()
            axes.set_title(name, fontsize=10, loc="left")
            if name == "parameters":
                axes.xaxis.set_major_formatter("{x:,.0f}")
                axes.locator_params(axis="x", nbins=3)
            plain(axes, "x")
        picture.savefig(folder / "sweep.png", dpi=150)
