"""Reports the results of a sweep: a table of its jobs, their means over seeds, and the jobs as CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box, get_console
from rich.console import Console
from rich.table import Table

from seqnets.analysis.jobs import Job, by_seed
from seqnets.training.summary import shown


def report_sweep(folder: Path, jobs: Sequence[Job]) -> None:
    """Print a row per job, and means over seeds where there are several, and write ``sweep.csv``.

    The means are printed with their standard deviations.
    """
    figures = list(dict.fromkeys(name for job in jobs if job.finished for name in job.metrics()))
    _write(folder / "sweep.csv", jobs, figures)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "job", *figures):
        table.add_column(column, no_wrap=True)
    for job in jobs:
        if not job.finished:
            table.add_row(job.folder.name, f"{job.name}: {job.result.get('status', 'refused')}")
            continue
        of = job.metrics()
        table.add_row(job.folder.name, job.name, *(_formatted(name, of.get(name)) for name in figures))
    console = Console(width=1000)  # long lines are better than cut ones; a table is no wider than it needs
    console.print(table)
    groups = {name: group for name, group in by_seed(jobs).items() if len(group) > 1}
    if groups:
        means = Table(title="means over seeds (standard deviations)", title_justify="left", box=box.SIMPLE_HEAD)
        for column in ("job", "seeds", *figures):
            means.add_column(column, no_wrap=True)
        for name, group in groups.items():
            means.add_row(name, str(len(group)), *(_spread(group, figure) for figure in figures))
        console.print(means)
    get_console().print(f"all of it: {shown(folder)}", soft_wrap=True, markup=False, highlight=False)


def _spread(group: Sequence[Job], figure: str) -> str:
    values = [job.metrics().get(figure, float("nan")) for job in group]
    if figure == "parameters":
        return _formatted(figure, values[0])
    return f"{_formatted(figure, float(np.mean(values)))} ({_formatted(figure, float(np.std(values, ddof=1)))})"


def _formatted(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if name == "parameters" else f"{value:.1f}" if name == "s/epoch" else f"{value:.4f}"


def _write(file: Path, jobs: Sequence[Job], figures: Sequence[str]) -> None:
    keys = list(dict.fromkeys(key for job in jobs for key in job.overrides))
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["folder", "status", *keys, *figures])
        for job in jobs:
            of = job.metrics() if job.finished else {}
            own = [job.overrides.get(key, "") for key in keys]
            status = job.result.get("status", "refused")
            writer.writerow([job.folder.name, status, *own, *(of.get(name, "") for name in figures)])
