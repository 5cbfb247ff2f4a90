"""One run: every case of the plan, kept as soon as it is measured."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.conductor import Conductor, Limits
from benchmarks.contenders import Settings
from benchmarks.display import Display, markdown
from benchmarks.environment import clocks, environment
from benchmarks.machine import rates
from benchmarks.plan import Planned, check, plan
from benchmarks.plots import draw_all
from benchmarks.results import read_results, write_csv, write_results
from benchmarks.suites import Refused, measure
from seqnets.errors import ConfigError, RunFolderError

SAME = ("seqnets", "commit", "python", "torch", "cpu", "device", "threads", "precision")


def run(config: dict[str, Any], folder: Path, go_on: bool = False) -> dict[str, Any]:
    """Measure what `config` says (see conf/benchmark.yaml) and keep it in `folder`: results.json after every case, at the end results.csv and plots.

    Args:
        go_on: with the run that lies in `folder`, which was interrupted.

    Raises:
        ConfigError: something in `config` is unknown or out of range.
        RunFolderError: `folder` has a run already; or, to go on, a run of another program or machine.
    """
    check(config)
    device = _device(config["device"])
    threads = config["threads"] or _cores()
    scratch = folder / "workers"
    settings = {
        name: Settings(name, device, threads, config["precision"], str(scratch / name), config["unroll"])
        for name in dict.fromkeys(name for p in plan(config) for name in p.contenders)
    }
    here = environment(Settings("", device, threads, config["precision"], "", 0), config["seed"])
    if go_on:
        results = read_results(folder)
        _refuse_other(results, here, folder)
    else:
        if (folder / "results.json").exists():
            raise RunFolderError(f"{folder} already holds a run; go on with it by python -m benchmarks resume {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        results = {
            "schema": 1,
            "status": "running",
            "environment": here,
            "machine": {},
            "config": config,
            "contenders": {},
        }
        results["measurements"] = []
    for one in settings.values():
        Path(one.scratch).mkdir(parents=True, exist_ok=True)
    limits = Limits(**config["limits"])
    todo = list(plan(config))
    with (
        Display(len(todo)) as display,
        Conductor(settings, config["pythons"], scratch, config["seconds"], config["turns"], limits) as conductor,
    ):
        display.say("measures the machine")
        results["machine"] = results["machine"] or rates(Settings("", device, threads, config["precision"], "", 0))
        display.say("starts the contenders")
        results["contenders"] = conductor.introduce()
        display.introduce(results)
        done = {json.dumps(m["case"], sort_keys=True) for m in results["measurements"]}
        try:
            for planned in todo:
                if json.dumps(_as_json(planned), sort_keys=True) in done:
                    display.skip()
                    continue
                display.begin(planned)
                found = _one(planned, conductor, config, device, display)
                results["measurements"].append(found)
                write_results(folder, results)
                display.end(found, results["machine"])
            results["status"] = "finished"
        except KeyboardInterrupt:
            results["status"] = "interrupted"
        results["environment"]["clocks_at_end"] = clocks()
        write_results(folder, results)
    write_csv(folder / "results.csv", results)
    (folder / "tables.md").write_text(markdown(results), encoding="utf-8")
    drawn = draw_all(results, folder)
    display.conclude(results, folder, drawn)
    return results


def _one(
    planned: Planned, conductor: Conductor, config: Mapping[str, Any], device: str, display: Display
) -> dict[str, Any]:
    told = {"case": _as_json(planned)}
    if planned.case is None:
        return told | {"refused": planned.refused, "results": {}}
    names = [name for name in planned.contenders if name in conductor.workers]
    try:
        return told | measure(planned.case, names, conductor, config["seed"], device, config["precision"], display.say)
    except Refused as error:
        return told | {"refused": str(error), "results": {}}


def _as_json(planned: Planned) -> dict[str, Any]:
    return json.loads(json.dumps(planned.given if planned.case is None else planned.case.to_dict()))


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(wanted: str) -> str:
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigError("device=cuda, but PyTorch finds no GPU here; device=cpu measures the CPU")
    return ("cuda" if available else "cpu") if wanted == "auto" else wanted


def _refuse_other(results: Mapping[str, Any], here: Mapping[str, Any], folder: Path) -> None:
    then = results["environment"]
    changed = [f"{name} was {then.get(name)}, is {here[name]}" for name in SAME if then.get(name) != here[name]]
    if changed:
        raise RunFolderError(
            f"the run in {folder} cannot go on, as its figures would not be comparable: {'; '.join(changed)}. Start a new one"
        )
