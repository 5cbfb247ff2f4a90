"""Two runs side by side: what became faster or slower beyond the noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cases import Case
from benchmarks.display import as_rich, console_of_width
from benchmarks.results import OURS, Figures, Spread, figures, geometric_mean, read_results, spread
from benchmarks.tables import Cell, Table


class Change(NamedTuple):
    case: Case
    contender: str
    old: Spread
    new: Spread
    ratio: float  # new to old, the drift of the machine taken out
    verdict: str  # "faster", "slower" or "same"


YARDSTICKS = ("torch.nn", "seqnets-reference", "onnxruntime", "keras", "flax")


def compare(old: Mapping[str, Any], new: Mapping[str, Any], least: float) -> tuple[list[Change], dict[Case, str]]:
    """What both runs measured.

    A machine is not as fast on one day as on another, and that meets all who take turns in a case alike: so times are divided
    by those of a yardstick, the first of `YARDSTICKS` that both have in the case, turn by turn. A change is beyond the noise
    if it is at least `least` and, in both runs, four fifths of the turns lie on their own side.

    Returns:
        The changes, and of each case its yardstick; of a case that has none, times are compared as they are.
    """
    olds, news = _by_key(old), _by_key(new)
    changes, yardsticks = [], {}
    for (case, contender), now in news.items():
        then = olds.get((case, contender))
        if then is None:
            continue
        stick = next((s for s in YARDSTICKS if s != contender and (case, s) in olds and (case, s) in news), "")
        yardsticks[case] = stick
        was, has = (_measure(found, found_of.get((case, stick))) for found, found_of in ((then, olds), (now, news)))
        ratio = has.median / was.median
        apart = has.p20 > was.p80 or has.p80 < was.p20
        beyond = apart and abs(ratio - 1) >= least
        changes.append(
            Change(case, contender, was, has, ratio, ("slower" if ratio > 1 else "faster") if beyond else "same")
        )
    return changes, yardsticks


def print_comparison(old_path: Path, new_path: Path, least: float) -> int:
    """The exit status: 1 where seqnets is slower somewhere."""
    old, new = read_results(old_path), read_results(new_path)
    console = console_of_width()
    for name in ("cpu", "device", "threads", "precision", "torch", "python", "compiler"):
        then, now = old["environment"].get(name), new["environment"].get(name)
        if then != now:
            console.print(f"not the same in both: {name} was {then}, is {now}", style="yellow")
    console.print(f"old: {old['environment']['commit']}, new: {new['environment']['commit']}")
    changes, yardsticks = compare(old, new, least)
    if not changes:
        console.print("the two runs have no measurement in common")
        return 0
    told = [change for change in changes if change.verdict != "same"]
    rows = [
        [
            Cell(str(c.case)), Cell(c.contender), Cell(_shown(c.old)), Cell(_shown(c.new)),
            Cell(f"{c.ratio:.3f}", c.verdict == "slower"), Cell(c.verdict, c.verdict == "slower"), Cell(yardsticks[c.case] or "seconds"),
        ]
        for c in sorted(told, key=lambda c: -c.ratio)
    ]  # fmt: skip
    header = ["case", "contender", "old", "new", "new / old", "", "in units of"]
    if rows:
        console.print(as_rich(Table(f"beyond the noise ({least:.0%} and the spread of turns)", header, rows, [])))
    for contender in dict.fromkeys(c.contender for c in changes):
        of_it = [c for c in changes if c.contender == contender]
        counts = {v: sum(c.verdict == v for c in of_it) for v in ("faster", "slower", "same")}
        mean = geometric_mean([c.ratio for c in of_it])
        console.print(
            f"{contender}: {counts['faster']} faster, {counts['slower']} slower, {counts['same']} the same; "
            f"new / old {mean:.3f} in the geometric mean of {len(of_it)}",
        )  # fmt: skip
    return int(any(c.verdict == "slower" and c.contender.startswith(OURS) for c in changes))


def _by_key(results: Mapping[str, Any]) -> dict[tuple[Case, str], Figures]:
    return {(f.case, f.contender): f for f in figures(results) if f.samples}


def _measure(f: Figures, stick: Figures | None) -> Spread:
    if stick is None or len(stick.samples) != len(f.samples):
        return spread(f.samples)
    return spread([own / other for own, other in zip(f.samples, stick.samples, strict=True)])


def _shown(s: Spread) -> str:
    return f"{s.median:.3g} ({s.p20:.3g}-{s.p80:.3g})"
