"""Compares two runs, and tells what became faster or slower beyond the noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.text import Text

from benchmarks.cases import Case
from benchmarks.display import as_rich, console_of_width
from benchmarks.results import OURS, Figures, Spread, figures, geometric_mean, read_results, spread
from benchmarks.tables import Cell, Table


class Change(NamedTuple):
    case: Case
    contender: str
    yardstick: str  # the contender whose time is the unit; empty: seconds
    old: Spread
    new: Spread
    ratio: float  # new to old
    verdict: str  # "faster", "slower" or "same"


FEW = 5  # with fewer turns, all of them must lie apart
YARDSTICKS = ("torch.nn", "seqnets-reference", "onnxruntime", "keras", "flax")


def compare(old: Mapping[str, Any], new: Mapping[str, Any], least: float) -> tuple[list[Change], list[Figures]]:
    """Compare what both runs timed.

    A machine is faster on some days than on others, which affects all contenders of a case alike. So times are divided,
    turn by turn, by those of a yardstick: the first other contender of `YARDSTICKS` that both runs timed in the case. A
    change is beyond the noise if it is at least `least` and the middle three fifths of the turns do not overlap between
    the runs; with fewer than `FEW` turns, none may overlap.

    Returns:
        The changes, and the new figures of what the old run timed and the new one tried, but could not time.
    """
    olds, news = _by_key(old), _by_key(new)
    changes, lost = [], []
    for (case, contender), now in news.items():
        then = olds.get((case, contender))
        if then is None or not then.samples:
            continue
        if not now.samples:
            lost.append(now)
            continue
        stick = next(
            (s for s in YARDSTICKS if s != contender and all(_timed(runs, case, s) for runs in (olds, news))), ""
        )
        was, has = (_measure(found, runs.get((case, stick))) for found, runs in ((then, olds), (now, news)))
        ratio = has.median / was.median
        beyond = (has.p20 > was.p80 or has.p80 < was.p20) and abs(ratio - 1) >= least
        verdict = ("slower" if ratio > 1 else "faster") if beyond else "same"
        changes.append(Change(case, contender, stick, was, has, ratio, verdict))
    return changes, lost


def print_comparison(old_path: Path, new_path: Path, least: float) -> int:
    """Print the comparison and return the exit status.

    Returns:
        1 if seqnets is slower, or can no longer be timed; 2 if nothing can be compared; else 0.
    """
    old, new = read_results(old_path), read_results(new_path)
    console = console_of_width()
    for name in ("cpu", "device", "threads", "precision", "torch", "python", "compiler"):
        then, now = old["environment"].get(name), new["environment"].get(name)
        if then != now:
            console.print(f"not the same in both: {name} was {then}, is {now}", style="yellow")
    console.print(f"old: {old['environment']['commit']}, new: {new['environment']['commit']}")
    changes, lost = compare(old, new, least)
    if not changes and not lost:
        console.print("the two runs have timed nothing in common (memory and kernels are not compared)", style="red")
        return 2
    rows = [
        [
            Cell(str(c.case)), Cell(c.contender), Cell(_shown(c.old)), Cell(_shown(c.new)),
            Cell(f"{c.ratio:.3f}", c.verdict == "slower"), Cell(c.verdict, c.verdict == "slower"),
            Cell(c.yardstick or "seconds"),
        ]
        for c in sorted(changes, key=lambda c: -c.ratio) if c.verdict != "same"
    ]  # fmt: skip
    header = ["case", "contender", "old", "new", "new / old", "", "in units of"]
    if rows:
        console.print(as_rich(Table(f"beyond the noise ({least:.0%} and the spread of turns)", header, rows, [])))
    for f in lost:
        console.print(Text(f"{f.contender}, {f.case}: was timed, is {f.status}: {f.why}", style="red"))
    for contender in dict.fromkeys(c.contender for c in changes):
        of_it = [c for c in changes if c.contender == contender]
        counts = {v: sum(c.verdict == v for c in of_it) for v in ("faster", "slower", "same")}
        mean = geometric_mean([c.ratio for c in of_it])
        console.print(
            f"{contender}: {counts['faster']} faster, {counts['slower']} slower, {counts['same']} the same; "
            f"new / old {mean:.3f} in the geometric mean of {len(of_it)}"
        )
    ours = [c.contender for c in changes if c.verdict == "slower"] + [f.contender for f in lost]
    return int(any(name.startswith(OURS) for name in ours))


def _by_key(results: Mapping[str, Any]) -> dict[tuple[Case, str], Figures]:
    return {(f.case, f.contender): f for f in figures(results)}


def _timed(runs: Mapping[tuple[Case, str], Figures], case: Case, contender: str) -> bool:
    return (case, contender) in runs and bool(runs[case, contender].samples)


def _measure(f: Figures, stick: Figures | None) -> Spread:
    samples = list(f.samples)
    if stick is not None and len(stick.samples) == len(samples):
        samples = [own / other for own, other in zip(samples, stick.samples, strict=True)]
    found = spread(samples)
    return found if len(samples) >= FEW else Spread(found.median, min(samples), max(samples))


def _shown(s: Spread) -> str:
    return f"{s.median:.3g} ({s.p20:.3g}-{s.p80:.3g})"
