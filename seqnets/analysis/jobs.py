"""Reads the runs of a sweep, so that they can be compared."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


@dataclass(frozen=True)
class Job:
    """Holds one run of a sweep.

    Attributes:
        overrides: what distinguishes it from the others, such as ``{"model/cell": "gru", "seed": "1"}``.
        folder: its run folder.
        result: the content of its result.json; empty if the run was refused.
        config: its configuration; empty if the run was refused.
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
        """Return a setting of its configuration, by the dotted name that overrides it."""
        return reduce(lambda node, part: node[part], key.split("."), self.config)

    def metrics(self) -> dict[str, float]:
        """Return test metrics, number of parameters and seconds per epoch, by name."""
        metrics = self.result["metrics"].items()
        tests = {name: math.nan if value is None else value for name, value in metrics if name.startswith("test/")}
        seconds = self.result["seconds_per_epoch"]
        means = {"s/epoch": statistics.fmean(seconds)} if seconds else {}
        return dict(sorted(tests.items())) | {"parameters": self.result["parameters"]} | means


def named(overrides: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in overrides.items()) or "as all"


def read_jobs(jobs: Sequence[tuple[Sequence[str], Path, bool]]) -> list[Job]:
    """Read the results and configurations of jobs.

    Args:
        jobs: for each job all its overrides, its folder, and whether it ran rather than was refused.
    """
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
    """Group the finished jobs that differ only in the seed, by the name of what they share."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if job.finished:
            shared = {key: value for key, value in job.overrides.items() if key != "seed"}
            groups.setdefault(named(shared) if shared else "all", []).append(job)
    return groups
