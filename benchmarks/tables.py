"""Turns results into tables: a row for each case, a column for each contender."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.cases import MODES, Case, KernelCase, LayerCase, case_of
from benchmarks.reasons import why_slower
from benchmarks.results import OURS, Figures, figures, geometric_mean


class Cell(NamedTuple):
    text: str
    slower: bool = False  # whether seqnets is slower than this, in four turns of five


class Table(NamedTuple):
    title: str
    header: list[str]
    rows: list[list[Cell]]
    notes: list[str]  # lines to be read with it


Column = tuple[str, bool]  # contender, and whether its cells are ratios to seqnets


def tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Yield a table per suite, and of `layer` one per mode; then the means of all, and what was not measured at all."""
    every = list(figures(results))
    refused = [m for m in results["measurements"] if "refused" in m]
    groups: dict[str, list[Figures]] = {}
    for f in every:
        mode = f", {f.case.mode}" if isinstance(f.case, LayerCase) and f.case.suite != "latency" else ""
        groups.setdefault(f.case.suite + mode, []).append(f)
    for title, of_suite in groups.items():
        maker = {"kernels": _kernels, "memory": _memory, "train": _training}.get(of_suite[0].case.suite, _times)
        yield maker(title, of_suite, results)
    if (means := summary(every)) is not None:
        yield means
    if refused:
        yield Table(
            "not measured at all",
            ["case", "why"],
            [[Cell(_told(m["case"])), Cell(m["refused"])] for m in refused],
            [],
        )


def summary(every: Sequence[Figures]) -> Table | None:
    """Tabulate the geometric means of the ratios over the cases that a contender served, by cell and mode.

    Returns None where there are no ratios.
    """
    ratios: dict[str, dict[str, list[float]]] = {}
    for f in every:
        if isinstance(f.case, LayerCase) and f.ratio is not None and f.contender != OURS:
            work = f"{f.case.cell.rpartition(':')[2]}, {'one step' if f.case.mode == 'step' else f.case.mode}"
            ratios.setdefault(work, {}).setdefault(f.contender, []).append(f.ratio.median)
    names = list(dict.fromkeys(name for found in ratios.values() for name in found))
    if not names:
        return None
    rows = [[Cell(work), *(_mean(found.get(name)) for name in names)] for work, found in ratios.items()]
    title = "how many times as fast seqnets is: geometric mean (least-most; cases)"
    return Table(title, ["", *names], rows, [])


def _mean(ratios: Sequence[float] | None) -> Cell:
    if not ratios:
        return Cell("")
    mean = geometric_mean(ratios)
    return Cell(f"{mean:.2f} ({min(ratios):.2f}-{max(ratios):.2f}; {len(ratios)})", mean < 1)


def heading(results: Mapping[str, Any]) -> list[str]:
    """Return what ran where, in lines."""
    environment, machine = results["environment"], results["machine"]
    lines = [
        f"seqnets {environment['seqnets']} at commit {(environment['commit'] or 'none')[:12]}, "
        f"PyTorch {environment['torch']}, {environment['device']}, float32 products {environment['precision']}, "
        f"seed {environment['seed']}",
        f"ceilings: {machine['gflops']:.0f} GFLOP/s, {machine['gbytes_per_second']:.1f} GB/s ({machine['source']})",
    ]
    for name, found in results["contenders"].items():
        told = ", ".join(f"{what} {version}" for what, version in found.get("versions", {}).items() if version)
        lines.append(f"{name}: {told or 'absent: ' + found['absent']}")
    return lines


def by_case(every: Iterable[Figures]) -> dict[Case, dict[str, Figures]]:
    found: dict[Case, dict[str, Figures]] = {}
    for f in every:
        found.setdefault(f.case, {})[f.contender] = f
    return found


def _told(given: Mapping[str, Any]) -> str:
    try:
        return str(case_of(given))
    except (ValueError, TypeError):
        return " ".join(f"{name}={value}" for name, value in given.items())


def _times(title: str, every: Sequence[Figures], results: Mapping[str, Any]) -> Table:
    cases = by_case(every)
    others = [name for name in dict.fromkeys(f.contender for f in every) if name != OURS]
    unit, scale = ("us", 1e6) if every[0].case.suite == "latency" else ("ms", 1e3)
    rows = []
    slower: dict[str, list[Figures]] = {}  # by reason
    for case, found in cases.items():
        ours = found.get(OURS)
        row = [Cell(str(case)), _own(ours, scale)]
        for name in others:
            row.append(_other(found.get(name), scale))
            if row[-1].slower:
                assert ours is not None
                slower.setdefault(why_slower(found[name], ours), []).append(found[name])
        row.append(Cell(_rates(ours)))
        rows.append(row)
    notes = [*_slower(slower), *_failures(every)]
    mode = title.rpartition(", ")[2] if ", " in title else "step"
    header = ["case", f"{OURS} {unit}", *others, f"{OURS}: us per step, GFLOP/s, of the floor"]
    return Table(
        f"{title}: {MODES[mode]}. Time of {OURS}, and how many times as fast it is (p20-p80)", header, rows, notes
    )


def _own(f: Figures | None, scale: float) -> Cell:
    if f is None or f.seconds is None:
        return Cell("" if f is None else f.status)
    return Cell(_digits(scale * f.seconds.median) + (f" {f.note}" if f.note else ""))


def _other(f: Figures | None, scale: float) -> Cell:
    """Tell how many times as fast seqnets is, with the spread over turns; without seqnets, the contender's time."""
    if f is None:
        return Cell("")
    if f.seconds is None:
        return Cell("-" if f.status == "not served" else f.status)
    if f.ratio is None:
        return Cell(f"{_digits(scale * f.seconds.median)} {'us' if scale > 1e5 else 'ms'}")
    slower = f.ratio.p80 < 1
    told = f"{_digits(f.ratio.median)} ({_digits(f.ratio.p20)}-{_digits(f.ratio.p80)})" + (" slower" if slower else "")
    return Cell(told + (f", {f.note}" if f.contender == "torch.nn" and f.note else ""), slower)


def _digits(value: float) -> str:
    """Format a number from 0.0001 up with about three digits, without powers of ten."""
    return (
        f"{value:.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2f}"
        if value >= 0.095
        else f"{value:.2g}"
    )


def _rates(f: Figures | None) -> str:
    if f is None or f.microseconds_per_time_step is None or f.gflops is None:
        return ""
    told = f"{_digits(f.microseconds_per_time_step)}, {_digits(f.gflops)}"
    return told if f.floor_share is None else f"{told}, {100 * f.floor_share:.0f}%"


def _slower(by_reason: Mapping[str, Sequence[Figures]]) -> Iterator[str]:
    for reason, found in by_reason.items():
        told = []
        for name in dict.fromkeys(f.contender for f in found):
            ratios = [f.ratio.median for f in found if f.contender == name and f.ratio]
            cases = [str(f.case) for f in found if f.contender == name]
            where = cases[0] if len(cases) == 1 else f"{len(cases)} cases"
            told.append(f"{name} ({min(ratios):.2f}{f'-{max(ratios):.2f}' if len(ratios) > 1 else ''}, {where})")
        yield f"slower than {', '.join(told)}: {reason}"


def _failures(every: Iterable[Figures]) -> Iterator[str]:
    """Yield what was not measured and why, once where many cases have the same reason."""
    reasons: dict[tuple[str, str], list[Case]] = {}
    for f in every:
        if f.seconds is None and f.why:
            reasons.setdefault((f"{f.contender}, {f.status}", f.why), []).append(f.case)
    for (who, why), cases in reasons.items():
        where = str(cases[0]) if len(cases) == 1 else f"{len(cases)} cases"
        yield f"{who}: {why} ({where})"


def _memory(title: str, every: Sequence[Figures], results: Mapping[str, Any]) -> Table:
    names = list(dict.fromkeys(f.contender for f in every))
    rows = []
    for case, found in by_case(every).items():
        row = [Cell(str(case))]
        for name in names:
            f = found.get(name)
            if f is None or f.peak_mb is None:
                row.append(Cell("" if f is None else "-" if f.status == "not served" else f.status))
            else:
                told = f"{f.peak_mb.median:.1f} ({f.peak_mb.p20:.1f}-{f.peak_mb.p80:.1f})"
                row.append(Cell(told + ("" if f.saved_mb is None else f", {f.saved_mb:.1f}")))
        rows.append(row)
    return Table(
        f"{title}: MB at the peak (p20-p80 of processes), kept for the backward pass",
        ["case", *names],
        rows,
        list(_failures(every)),
    )


def _training(title: str, every: Sequence[Figures], results: Mapping[str, Any]) -> Table:
    rows = []
    for f in every:
        row = [Cell(str(f.case)), Cell(f.contender)]
        if f.seconds is None:
            row += [Cell(f.status)] + [Cell("")] * 5
        else:
            ratio = "" if f.ratio is None else f"{f.ratio.median:.2f} ({f.ratio.p20:.2f}-{f.ratio.p80:.2f})"
            row += [
                Cell(f"{1e3 * f.seconds.median:.1f}"), Cell(ratio, f.ratio is not None and f.ratio.p80 < 1),
                Cell(f"{f.epoch_seconds:.1f}"), Cell("" if f.peak_mb is None else f"{f.peak_mb.median:.0f}"),
                Cell(f"{f.parameters:,}"), Cell(f.note),
            ]  # fmt: skip
        rows.append(row)
    header = [
        "experiment",
        "contender",
        "ms per step",
        "times as fast seqnets is",
        "s per epoch",
        "peak MB",
        "parameters",
        "backend",
    ]
    return Table("train: steps of training, taking turns", header, rows, list(_failures(every)))


def _kernels(title: str, every: Sequence[Figures], results: Mapping[str, Any]) -> Table:
    from seqnets.kernels.report.command import HEADER, NOTE, line_of

    kernels = [m["results"][OURS]["kernel"] for m in results["measurements"] if "kernel" in m["results"].get(OURS, {})]
    assert all(isinstance(f.case, KernelCase) for f in every)
    rows = [[Cell(text) for text in line_of(kernel)] for kernel in kernels]
    return Table("kernels, compiled ahead of time: no GPU was needed", list(HEADER), rows, [NOTE, *_failures(every)])
