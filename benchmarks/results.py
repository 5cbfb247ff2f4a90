"""Reads a run's results and computes metrics from them.

results.json holds what was measured and where, and nothing that can be computed from it. schema.json defines its form.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import Case, LayerCase, TrainCase, case_of
from seqnets.errors import DataError

SCHEMA = Path(__file__).with_name("schema.json")
OURS = "seqnets"


class Spread(NamedTuple):
    """Holds the median, and the 20th and 80th percentiles, between which three fifths of the samples lie."""

    median: float
    p20: float
    p80: float


class Figures(NamedTuple):
    """Holds the metrics of one contender in one case. None: not measured, or without a meaning there."""

    case: Case
    contender: str
    status: str
    why: str | None
    seconds: Spread | None = None  # per call or training step
    ratio: Spread | None = None  # its time over that of seqnets, turn by turn: how many times as fast seqnets is
    samples: tuple[float, ...] = ()  # seconds, one for each turn
    microseconds_per_time_step: float | None = None
    gflops: float | None = None  # 10^9 operations per second, of the products that a layer cannot do without
    gbytes_per_second: float | None = None  # of the traffic that it cannot do without
    floor_share: float | None = None  # the least time that the machine needs (the roofline), over its time
    peak_mb: Spread | None = None
    saved_mb: float | None = None
    prepare_seconds: float | None = None
    epoch_seconds: float | None = None
    parameters: int | None = None
    error_share: float | None = None  # the error over what is allowed
    note: str = ""


def spread(samples: Sequence[float]) -> Spread:
    if len(samples) == 1:
        return Spread(samples[0], samples[0], samples[0])
    low, *_, high = statistics.quantiles(samples, n=5, method="inclusive")
    return Spread(statistics.median(samples), low, high)


def read_results(path: Path) -> dict[str, Any]:
    """Read results.json; the path is its own or that of a run's folder.

    Raises:
        DataError: The file is missing, or not of this form.
    """
    import jsonschema

    path = path / "results.json" if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(found, json.loads(SCHEMA.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; name a run's folder or its results.json") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    except jsonschema.ValidationError as error:
        raise DataError(f"{path} is not a benchmark's results: {error.json_path}: {error.message[:200]}") from error
    return found


def figures(results: Mapping[str, Any]) -> Iterator[Figures]:
    """Yield the metrics of every contender in every case, in the order in which they were measured."""
    for measurement in results["measurements"]:
        yield from figures_of(measurement, results["machine"])


def figures_of(measurement: Mapping[str, Any], machine: Mapping[str, Any]) -> Iterator[Figures]:
    if "refused" in measurement:
        return
    case = case_of(measurement["case"])
    ours = measurement["results"].get(OURS, {}).get("seconds")
    for name, result in measurement["results"].items():
        told: dict[str, Any] = {"note": _note(result)}
        if samples := result.get("seconds"):
            seconds = told["seconds"] = spread(samples)
            told["samples"] = tuple(samples)
            if ours and len(ours) == len(samples):
                told["ratio"] = spread([theirs / own for theirs, own in zip(samples, ours, strict=True)])
            if isinstance(case, LayerCase):
                told |= _rates(case, measurement["work"], seconds.median, machine)
            if isinstance(case, TrainCase):
                of_a_step = statistics.fmean(samples) if case.epoch else seconds.median
                told["epoch_seconds"] = of_a_step * result["epoch_steps"]
        if result.get("peak_bytes"):
            told["peak_mb"] = spread([size / 1e6 for size in result["peak_bytes"]])
        if "saved_bytes" in result:
            told["saved_mb"] = result["saved_bytes"] / 1e6
        if "error" in result:
            told["error_share"] = result["error"]["error"] / result["error"]["allowed"]
        yield Figures(
            case, name, result["status"], result.get("why"), prepare_seconds=result.get("prepare_seconds"),
            parameters=result.get("parameters"), **told,
        )  # fmt: skip


def work_of(case: LayerCase, gates: int, rows: int) -> dict[str, float]:
    """Return the work that a layer cannot do without.

    Training takes three times the products, and moves everything once more as a gradient.

    Args:
        case: The layer.
        gates: The number of gates of its cell.
        rows: The number of rows that run, over time and batch.

    Returns:
        ``flops``, the operations of the products, and ``bytes`` of inputs, outputs and weights, each moved once.
    """
    size = {"fp64": 8, "fp32": 4}.get(case.dtype, 2)
    flops = weights = 0
    for _, width in case.sizes():
        flops += 2 * rows * gates * case.H * (width + case.H)
        weights += gates * case.H * (width + case.H + 2)
    moved = size * (weights + rows * (case.I + case.directions * case.H))
    train = case.mode == "train"
    return {"flops": flops * (3 if train else 1), "bytes": moved * (2 if train else 1)}


def _rates(
    case: LayerCase, work: Mapping[str, float], seconds: float, machine: Mapping[str, Any]
) -> dict[str, float | None]:
    floor = None
    if machine["gflops"] and case.dtype == "fp32":
        floor = max(work["flops"] / machine["gflops"], work["bytes"] / machine["gbytes_per_second"]) / 1e9
    if floor is not None and work["chain_seconds"]:
        floor = max(floor, work["chain_seconds"] * case.T * (2 if case.mode == "train" else 1))
    return {
        "microseconds_per_time_step": 1e6 * seconds / case.T,
        "gflops": work["flops"] / seconds / 1e9,
        "gbytes_per_second": work["bytes"] / seconds / 1e9,
        "floor_share": floor / seconds if floor else None,
    }


def _note(result: Mapping[str, Any]) -> str:
    notes = result.get("notes", {})
    told = [str(notes[name]) for name in ("backend", "cudnn") if name in notes]
    for name, what in (("host_seconds", "launched in"), ("graph_seconds", "as a graph")):
        if notes.get(name) is not None:
            told.append(f"{what} {1e6 * notes[name]:.0f} us")
    return ", ".join(told)


COLUMNS = (
    "suite", "case", "contender", "status", "milliseconds", "p20", "p80", "ratio_to_seqnets", "ratio_p20", "ratio_p80",
    "turns", "microseconds_per_time_step", "gflops", "gbytes_per_second", "floor_share", "peak_mb", "saved_mb",
    "prepare_seconds", "epoch_seconds", "parameters", "error_share", "note", "why",
)  # fmt: skip


def write_csv(path: Path, results: Mapping[str, Any]) -> None:
    """Write a line for each contender in each case: metrics, the case in words, and each of its fields in a column."""
    every = list(figures(results))
    parts = list(dict.fromkeys(name for f in every for name in f.case.to_dict() if name != "suite"))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *(f"case_{name}" if name in COLUMNS else name for name in parts)])
        for f in every:
            case = f.case.to_dict()
            times = [1e3 * v for v in f.seconds] if f.seconds else [None] * 3
            writer.writerow(
                [
                    case["suite"], str(f.case), f.contender, f.status, *map(_short, times),
                    *map(_short, f.ratio or [None] * 3), len(f.samples),
                    *(_short(_single(getattr(f, name))) for name in COLUMNS[11:]), *(case.get(name) for name in parts),
                ]
            )  # fmt: skip


def _single(value: Any) -> Any:
    return value.median if isinstance(value, Spread) else value


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))
