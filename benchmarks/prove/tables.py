"""Turns a proof into short tables, each with a header and rows of strings."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.prove.work import MODES

Found = Mapping[str, Any]
LAUNCHED = "on stub"  # in a rehearsal, in place of a figure


class Table(NamedTuple):
    title: str
    header: tuple[str, ...]
    rows: list[list[str]]


def tables(results: Found) -> list[Table]:
    made = [
        _checks(results),
        *(_times(results, phase) for phase in ("times", "variants")),
        _persistent(results),
        _others(results),
    ]
    return [table for table in made if table.rows]


def heading(results: Found) -> list[str]:
    """Return what ran where, in lines."""
    r = results
    where = (
        f"{r['gpu']}, capability {r['capability']}, {r['multiprocessors']} multiprocessors, "
        f"{r['memory_gib']:g} GiB ({r['free_gib']:g} free)"
    )
    versions = ", ".join(
        f"{name} {r[name]}" for name in ("torch", "triton", "cuda", "cudnn", "driver", "python") if r[name]
    )
    source = f"commit {r['commit'] or 'unknown'}, kernels {r['source'][:12]}"
    rehearsed = ["REHEARSAL on a stub: nothing was computed, and no time is that of a GPU"] if r["rehearsed"] else []
    return [*rehearsed, where, versions, source]


def summary(results: Found) -> str:
    """Count the results by status, in a sentence."""
    counts: dict[str, int] = {}
    for item in results["items"]:
        counts[item["status"]] = counts.get(item["status"], 0) + 1
    told = ", ".join(f"{number} {status}" for status, number in counts.items()) or "nothing was reached"
    left = f"; not reached: {len(results['not_reached'])}" if results["not_reached"] else ""
    seconds = sum(run["seconds"] for run in results["runs"])
    return f"{told}{left}; {seconds:.0f} s."


def markdown(results: Found) -> str:
    lines = [f"- {line}" for line in heading(results)]
    for table in tables(results):
        rows = [table.header, ["---"] * len(table.header), *table.rows]
        lines += ["", f"### {table.title}", "", *(f"| {' | '.join(_cell(c) for c in row)} |" for row in rows)]
    return "\n".join([*lines, "", summary(results)]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _checks(results: Found) -> Table:
    """Tabulate the error over what is allowed: a row for each cell, dtype and mode, a column for each schedule."""
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for item in results["items"]:
        if match := re.fullmatch(r"check (\w+) (\w+) (\w+) (H=\d+) (\w+)", item["name"]):
            cell, dtype, schedule, size, mode = match.groups()
            found.setdefault((f"{cell} {size}", dtype, mode), {})[schedule] = _error(item, item["found"])
    rows = [[*key, told.get("resident", ""), told.get("tiled", "")] for key, told in found.items()]
    return Table("Error over tolerance: at most 1 agrees", ("cell", "dtype", "mode", "resident", "tiled"), rows)


def _error(item: Found, found: Found) -> str:
    if "agrees" not in found:
        return str(item["status"])
    if found["agrees"] is None:
        return LAUNCHED
    ratio = found["error_over_allowed"]
    told = "infinite" if ratio is None else f"{ratio:.2g}"
    return told if found["agrees"] else f"DISAGREES: {told} ({found['worst']})"


def _times(results: Found, phase: str) -> Table:
    rows = [
        [
            item["name"].removeprefix("time "),
            mode,
            *(_rehearsed(item, mode) if results["rehearsed"] else _of_a_mode(item, mode)),
        ]
        for item in results["items"]
        if item["phase"] == phase and "times" in item["found"]
        for mode in MODES
    ]
    header = (
        "layer", "mode", "GPU us/step", "host us/step", "graph us/step", "torch.nn: GPU", "torch.nn: host",
        "torch.nn: graph", "cuDNN algorithm (by PyTorch's rule)", "speedup over torch.nn", "error over tolerance",
    )  # fmt: skip
    return Table("Times" if phase == "times" else "Variants", header, rows)


def _rehearsed(item: Found, mode: str) -> list[str]:
    """Say that the item was launched, with no time that could be mistaken for a GPU's."""
    others = [LAUNCHED] * 3 if "torch.nn" in item["found"]["times"][mode] else [""] * 3
    return [*[LAUNCHED] * 3, *others, "", "", LAUNCHED]


def _of_a_mode(item: Found, mode: str) -> Iterator[str]:
    found, steps = item["found"], _steps(item["name"])
    times = found["times"][mode]
    for name in ("seqnets", "torch.nn"):
        told = times.get(name)
        if told is None:
            yield from ("", "", "")
            continue
        for seconds in (statistics.median(told["gpu_seconds"]), told["host_seconds"], told["graph_seconds"]):
            yield "-" if seconds is None else f"{1e6 * seconds / steps:.2f}"
    yield (found["cudnn"] or {}).get(mode, "")
    yield _ratio(times)
    yield _error(item, found)


def _ratio(times: Found) -> str:
    if "torch.nn" not in times:
        return ""
    pairs = zip(times["torch.nn"]["gpu_seconds"], times["seqnets"]["gpu_seconds"], strict=True)
    return f"{statistics.median(theirs / ours for theirs, ours in pairs):.2f}x"


def _steps(name: str) -> int:
    """Return the number of time steps that run one after another: those of all layers."""
    steps, layers = re.search(r"T=(\d+)", name), re.search(r"layers=(\d+)", name)
    return int(steps[1] if steps else 1) * int(layers[1] if layers else 1)


def _persistent(results: Found) -> Table:
    rows = []
    for item in results["items"]:
        for mode in ("forward", "backward"):
            if (told := item["found"].get(mode)) and item["name"].startswith("persistent"):
                same = {True: "yes", False: "NO", None: "-"}[told["same_bits"]]
                each = f"{1e6 * statistics.median(told['gpu_seconds']) / _steps(item['name']):.2f}"
                gave_up = {True: "YES", False: "no", None: "-"}[
                    None if results["rehearsed"] else item["found"]["gave_up"]
                ]
                rows.append(
                    [item["name"], mode, LAUNCHED if results["rehearsed"] else each, _error(item, told), same, gave_up]
                )
    return Table(
        "Persistent prototype",
        ("case", "pass", "GPU us/step", "error over tolerance", "same bits", "gave up waiting"),
        rows,
    )


def _others(results: Found) -> Table:
    """Tabulate what was not served, failed or was not reached, and what pytest reported."""
    rows = [
        [item["name"], item["status"], item["why"] or ""]
        for item in results["items"]
        if item["status"] not in ("agrees", "disagrees", "done")
    ]
    tests = results["tests"]
    if tests is not None:
        told = (
            f"{tests['passed']} passed, {tests['failed']} failed, "
            f"{tests['skipped']} skipped in {tests['seconds']:.0f} s"
        )
        rows.append(["tests/gpu", tests["status"], told])
        rows += [[test["name"], "failed", test["message"].partition("\n")[0][:200]] for test in tests["failures"]]
    rows += [[name, "not reached", ""] for name in results["not_reached"]]
    return Table("Not served, failed, or not reached", ("item", "status", "why"), rows)
