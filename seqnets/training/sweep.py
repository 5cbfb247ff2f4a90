"""What a sweep found: a table of its jobs, their means over seeds, the same as CSV, and a picture."""

import csv
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich import box, get_console
from rich.console import Console
from rich.table import Table

from seqnets.training.summary import shown


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        overrides: what distinguishes it from the others, such as ``{"model/cell": "gru", "seed": "1"}``.
        folder: its run folder.
        result: what its result.json holds; empty where it was refused.
        config: its configuration; empty where it was refused.
    """

    overrides: dict[str, str]
    folder: Path
    result: dict[str, Any]
    config: dict[str, Any]

    @property
    def finished(self) -> bool:
        return self.result.get("status") == "finished"

    @property
    def name(self) -> str:
        return named(self.overrides)

    def setting(self, key: str) -> Any:
        """Of its configuration, by the name that one overrides it by."""
        return reduce(lambda node, part: node[part], key.split("."), self.config)

    def figures(self) -> dict[str, float]:
        """Test figures, parameters and seconds per epoch."""
        metrics = self.result["metrics"].items()
        tests = {name: math.nan if value is None else value for name, value in metrics if name.startswith("test/")}
        seconds = self.result["seconds_per_epoch"]
        means = {"s/epoch": statistics.fmean(seconds)} if seconds else {}
        return dict(sorted(tests.items())) | {"parameters": self.result["parameters"]} | means


def named(overrides: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in overrides.items()) or "as all"


def read_jobs(jobs: Sequence[tuple[Sequence[str], Path, bool]]) -> list[Job]:
    """Jobs given by all their overrides, their folders, and whether they ran rather than were refused."""
    common = set.intersection(*(set(overrides) for overrides, *_ in jobs))
    read = []
    for overrides, folder, ran in jobs:
        own = dict(override.lstrip("+~").partition("=")[::2] for override in overrides if override not in common)
        result, config = folder / "result.json", folder / "config.yaml"
        if ran and config.exists():
            plain = OmegaConf.to_container(OmegaConf.load(config))
            found = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
            read.append(Job(own, folder, found, plain))  # type: ignore[arg-type]
        else:
            read.append(Job(own, folder, {}, {}))
    return read


def by_seed(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    """The finished jobs that differ in nothing but the seed, by the name of what they share."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if job.finished:
            shared = {key: value for key, value in job.overrides.items() if key != "seed"}
            groups.setdefault(named(shared) if shared else "all", []).append(job)
    return groups


def report_sweep(folder: Path, jobs: Sequence[Job]) -> None:
    """Print a row for each job, and means and spreads over seeds where there are several; write ``sweep.csv``."""
    figures = list(dict.fromkeys(name for job in jobs if job.finished for name in job.figures()))
    _write(folder / "sweep.csv", jobs, figures)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "job", *figures):
        table.add_column(column, no_wrap=True)
    for job in jobs:
        if not job.finished:
            table.add_row(job.folder.name, f"{job.name}: {job.result.get('status', 'refused')}")
            continue
        of = job.figures()
        table.add_row(job.folder.name, job.name, *(_formatted(name, of.get(name)) for name in figures))
    console = Console(width=1000)  # rather long lines than cut ones; a table takes what it needs
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
    values = [job.figures().get(figure, float("nan")) for job in group]
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
            of = job.figures() if job.finished else {}
            own = [job.overrides.get(key, "") for key in keys]
            status = job.result.get("status", "refused")
            writer.writerow([job.folder.name, status, *own, *(of.get(name, "") for name in figures)])
