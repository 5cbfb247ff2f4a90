"""Plots how long cells remember: the part of the loss of guessing that is left, by length."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from seqnets.analysis.jobs import Job
from seqnets.analysis.style import color, new_figure, plain


class SolvedLengths:
    """Plots ``solved.png``: the test loss as a share of the loss of guessing, against the length of the problem.

    A line stands for all jobs that differ only in the length and the seed.

    Args:
        x: the setting that is the length.
        solved: the share below which a problem counts as solved.
    """

    def __init__(self, x: str = "data.length", solved: float = 0.1) -> None:
        self.x, self.solved = x, solved

    def __call__(self, folder: Path, jobs: Sequence[Job]) -> None:
        points: dict[str, dict[int, list[float]]] = {}
        for job in jobs:
            if job.finished:
                share = job.result["metrics"]["test/loss"] / job.result["data"]["guess"]
                others = {key: value for key, value in job.overrides.items() if key not in (self.x, "seed")}
                name = ", ".join(others.values()) or job.setting("model.cell.name")
                points.setdefault(name, {}).setdefault(job.setting(self.x), []).append(share)
        if not points:
            return
        picture = new_figure(7.2, 4.4)
        axes = picture.subplots()
        for number, (name, of) in enumerate(points.items()):
            lengths = sorted(of)
            paint = color(name, number)
            axes.plot(
                lengths, [statistics.fmean(of[t]) for t in lengths], color=paint, linewidth=1.8, label=name, zorder=3
            )
            for t in lengths:
                for share in of[t]:
                    full = share < self.solved
                    axes.plot(
                        t, share, "o", color=paint, markerfacecolor=paint if full else "white", markersize=8, zorder=4
                    )
        every = sorted({t for of in points.values() for t in of})
        for level, told in ((1.0, "guessing"), (self.solved, "solved below")):
            axes.axhline(level, color="0.45", linewidth=0.9, linestyle=":")
            axes.annotate(
                told, (1.01, level), xycoords=("axes fraction", "data"), ha="left", va="center", color="0.35",
                fontsize=9,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="length T", ylabel="test loss / loss of guessing")
        axes.set_xticks(every, [str(t) for t in every])
        axes.minorticks_off()
        axes.legend(frameon=False, title="filled: solved", fontsize=9)
        plain(axes)
        picture.savefig(folder / "solved.png", dpi=150)
