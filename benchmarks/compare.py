"""Two runs side by side: what became faster or slower beyond the noise."""

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
    yardstick: str  # whose time is the unit; none: seconds
    old: Spread
    new: Spread
    ratio: float  # new to old
    verdict: str  # "faster", "slower" or "same"


FEW = 5  # turns, below which all must lie apart
YARDSTICKS = ("torch.nn", "seqnets-reference", "onnxruntime", "keras", "flax")


def compare(old: Mapping[str, Any], new: Mapping[str, Any], least: float) -> tuple[list[Change], list[Figures]]:
    """What both runs timed; and of what the old one timed that which the new one has, but could not time.

    A machine is not as fast on one day as on another, and that meets all who take turns in a case alike: so times are divided
    by those of a yardstick, the first of `YARDSTICKS` that both have in the case, turn by turn. A change is beyond the noise
    if it is at least `least` and, between the runs, the middle three fifths of the turns lie apart.
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
    """The exit status: 1 where seqnets is slower, or could not be timed any more; 2 where nothing can be compared."""
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
            Cell(f"{c.ratio:.3f}", c.verdict == "slower"), Cell(c.verdict, c.verdict == "slower"), Cell(c.yardstick or "seconds"),
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
