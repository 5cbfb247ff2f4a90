"""Shows a run: on a terminal a bar and the last case's results, elsewhere a line per case; tables at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.plan import Planned
from benchmarks.results import OURS, Figures, figures_of
from benchmarks.tables import Table, heading, tables


class Display:
    """Shows the progress and the results of one run.

    Args:
        total: The number of cases.
    """

    def __init__(self, total: int) -> None:
        self.console = console_of_width()
        self.progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(), console=self.console,
        )  # fmt: skip
        self._task = self.progress.add_task("", total=total)
        self._case = ""
        self._last: RichTable | None = None
        self._live = Live(self._shown(), console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.__exit__(kind, error, trace)

    def introduce(self, results: Mapping[str, Any]) -> None:
        """Print what runs where."""
        for line in heading(results):
            self._print(line, "yellow" if ": absent: " in line else "")

    def begin(self, planned: Planned) -> None:
        self._case = str(planned.case or planned.given)
        self.say("")

    def say(self, what: str) -> None:
        """Show what is being done now."""
        self.progress.update(self._task, description=f"{self._case}: {what}" if self._case else what)
        self._live.update(self._shown())

    def skip(self) -> None:
        self.progress.advance(self._task)

    def end(self, measurement: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
        """Show the results of a case that has been measured."""
        self.progress.advance(self._task)
        if "refused" in measurement:
            self._print(f"{self._case}: {measurement['refused']}", "yellow")
            return
        found = list(figures_of(measurement, machine))
        if self.console.is_terminal:
            self._last = _of_a_case(self._case, found)
            self._live.update(self._shown())
        self._print(f"{self._case}: {', '.join(filter(None, map(_brief, found)))}")
        for f in found:
            if f.status not in ("measured", "not served"):
                self._print(f"    {f.contender}: {f.status}: {f.why}", "red")

    def conclude(self, results: Mapping[str, Any], folder: Path, drawn: list[Path]) -> None:
        show_tables(results, self.console)
        if results["status"] == "interrupted":
            self._print(f"interrupted; go on with it by python -m benchmarks resume {folder}", "yellow")
        self._print(
            f"every sample: {folder / 'results.json'}; worked out: {folder / 'results.csv'}; "
            f"tables: {folder / 'tables.md'}"
        )
        for path in drawn:
            self._print(f"drawn: {path}")

    def _shown(self) -> Group:
        return Group(*([self._last] if self._last else []), self.progress)

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style))


def console_of_width() -> Console:
    """Return a console as wide as the terminal, or for a file 240 columns wide, which fits its tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=240)


def show_tables(results: Mapping[str, Any], console: Console | None = None) -> None:
    console = console or console_of_width()
    for table in tables(results):
        console.print()
        console.print(as_rich(table))
        for note in table.notes:
            console.print(Text(note))
    console.print()


def as_rich(table: Table) -> RichTable:
    shown = RichTable(*table.header, title=table.title, box=box.SIMPLE_HEAD, title_justify="left")
    for row in table.rows:
        shown.add_row(*(Text(cell.text, style="red" if cell.slower else "") for cell in row))
    return shown


def as_markdown(table: Table) -> str:
    lines = [table.header, ["---"] * len(table.header), *([cell.text for cell in row] for row in table.rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([f"### {table.title}", "", text, "", *(f"- {note}" for note in table.notes)]).rstrip() + "\n"


def markdown(results: Mapping[str, Any]) -> str:
    """Return all tables, and what ran where, in Markdown."""
    return "\n".join([*(f"- {line}" for line in heading(results)), "", *map(as_markdown, tables(results))])


def _of_a_case(title: str, found: list[Figures]) -> RichTable:
    shown = RichTable(
        "contender",
        "ms",
        "p20 - p80",
        "seqnets is",
        "turns",
        "GFLOP/s",
        "GB/s",
        "error",
        "",
        title=title,
        box=box.SIMPLE_HEAD,
    )
    for f in found:
        if f.seconds is None:
            shown.add_row(f.contender, *[""] * 7, Text(f.why or f.status))
            continue
        ratio = "" if f.ratio is None or f.contender == OURS else f"{f.ratio.median:.2f}x as fast"
        shown.add_row(
            f.contender, f"{1e3 * f.seconds.median:.3f}", f"{1e3 * f.seconds.p20:.3f} - {1e3 * f.seconds.p80:.3f}",
            ratio, str(len(f.samples)), "" if f.gflops is None else f"{f.gflops:.1f}",
            "" if f.gbytes_per_second is None else f"{f.gbytes_per_second:.1f}",
            "" if f.error_share is None else f"{100 * f.error_share:.0f}% of allowed", f.note,
        )  # fmt: skip
    return shown


def _brief(f: Figures) -> str:
    if f.peak_mb is not None and f.seconds is None:
        return f"{f.contender} {f.peak_mb.median:.1f} MB"
    if f.seconds is None:
        return f.contender + (" compiled" if f.status == "measured" else f" {f.status}")
    return f"{f.contender} {1e3 * f.seconds.median:.3g} ms"
