"""Runs the benchmarks: every case of the plan, kept as soon as it is measured."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import Settings, in_a_line
from benchmarks.cuda import clocks
from benchmarks.display import Display, markdown
from benchmarks.environment import environment
from benchmarks.machine import rates
from benchmarks.plan import Planned, check, plan
from benchmarks.plots import plot_all
from benchmarks.results import read_results, write_csv
from benchmarks.suites import Refused, measure
from benchmarks.worker_pool import Limits, WorkerPool
from seqnets.cores import cores
from seqnets.errors import ConfigError, RunFolderError
from seqnets.training.run_folder import write_json

SAME = ("seqnets", "commit", "python", "torch", "cpu", "device", "threads", "precision", "compiler", "SEQNETS_BACKEND")


def run(config: dict[str, Any], folder: Path, go_on: bool = False) -> dict[str, Any]:
    """Measure what `config` says (see conf/benchmark.yaml), and keep the results in `folder`.

    results.json is written after every case; results.csv, tables.md and the plots at the end.

    Args:
        config: The configuration, resolved.
        folder: The run's folder.
        go_on: Whether to resume the interrupted run in `folder`.

    Returns:
        The contents of results.json. Their status is "finished" or "interrupted".

    Raises:
        ConfigError: Something in `config` is unknown or out of range.
        RunFolderError: `folder` already has a run; or the run to resume is finished, or of another program or machine.
    """
    check(config)
    device = _device(config["device"])
    threads = config["threads"] or cores()
    scratch = folder / "workers"
    settings = {
        name: Settings(name, device, threads, config["precision"], str(scratch / name), config["unroll"])
        for name in dict.fromkeys(name for p in plan(config) for name in p.contenders)
    }
    nobody = Settings("", device, threads, config["precision"], "", 0)
    results: dict[str, Any] = {
        "schema": 1,
        "status": "running",
        "environment": environment(nobody, config["seed"]),
        "machine": {},
        "config": config,
        "contenders": {},
        "measurements": [],
    }
    if go_on:
        results |= _so_far(folder, results["environment"])
    elif (folder / "results.json").exists():
        raise RunFolderError(f"{folder} already holds a run; go on with it by python -m benchmarks resume {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    for one in settings.values():
        Path(one.scratch).mkdir(parents=True, exist_ok=True)
    limits = Limits(**config["limits"])
    pythons = {name: python for name, python in config["pythons"].items() if python is not None}
    todo = list(plan(config))
    with (
        Display(len(todo)) as display,
        WorkerPool(settings, pythons, scratch, config["seconds"], config["turns"], limits) as pool,
    ):
        try:
            display.say("measures the machine")
            results["machine"] = results["machine"] or rates(nobody)
            display.say("starts the contenders")
            _refuse_others(results["contenders"], found := pool.introduce(), folder)
            results["contenders"] = found
            display.introduce(results)
            done = {json.dumps(m["case"], sort_keys=True) for m in results["measurements"]}
            for planned in todo:
                if json.dumps(_as_json(planned), sort_keys=True) in done:
                    display.skip()
                    continue
                display.begin(planned)
                measured = _one(planned, pool, config, device, display)
                results["measurements"].append(measured)
                write_json(folder / "results.json", results)
                display.end(measured, results["machine"])
            results["status"] = "finished"
        except KeyboardInterrupt:
            results["status"] = "interrupted"
    if not results["contenders"]:  # interrupted before the contenders were known
        return results
    results["environment"]["clocks_at_end"] = clocks()
    write_json(folder / "results.json", results)
    write_csv(folder / "results.csv", results)
    (folder / "tables.md").write_text(markdown(results), encoding="utf-8")
    display.conclude(results, folder, plot_all(results, folder))
    return results


def _one(
    planned: Planned, pool: WorkerPool, config: Mapping[str, Any], device: str, display: Display
) -> dict[str, Any]:
    told = {"case": _as_json(planned)}
    if planned.case is None:
        return told | {"refused": planned.refused, "results": {}}
    names = [name for name in planned.contenders if name in pool.workers]
    try:
        return told | measure(planned.case, names, pool, config["seed"], device, config["precision"], display.say)
    except Refused as error:
        return told | {"refused": str(error), "results": {}}
    except Exception as error:  # one case must not cost the others
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        return told | {"refused": in_a_line(error), "results": {}}


def _as_json(planned: Planned) -> dict[str, Any]:
    return json.loads(json.dumps(planned.given if planned.case is None else planned.case.to_dict()))


def _device(wanted: str) -> str:
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigError("device=cuda, but PyTorch finds no GPU here; device=cpu measures the CPU")
    return ("cuda" if available else "cpu") if wanted == "auto" else wanted


def _so_far(folder: Path, here: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of the interrupted run in `folder`.

    Raises:
        RunFolderError: The run is finished, or cannot go on here.
    """
    results = read_results(folder)
    if results["status"] == "finished":
        raise RunFolderError(f"the run in {folder} is finished; show it by python -m benchmarks show {folder}")
    then = results["environment"]
    changed = [f"{name} was {then.get(name)}, is {here.get(name)}" for name in SAME if then.get(name) != here.get(name)]
    if changed:
        raise RunFolderError(
            f"the run in {folder} cannot go on, "
            f"as its figures would not be comparable: {'; '.join(changed)}. Start a new one"
        )
    return results | {"status": "running"}


def _refuse_others(then: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    for name, found in then.items():
        if name in now and found != now[name]:
            raise RunFolderError(
                f"the run in {folder} cannot go on: {name} was {found}, is {now[name]}. Start a new one"
            )
