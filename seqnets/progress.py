"""How far a command is, on standard error: a bar by rich on a terminal, where it is installed, else a line for each part."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


class Progress:
    """Of so many parts.

    Args:
        total: their number.
    """

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._start = time.monotonic()
        self._bar = _bar() if total and sys.stderr.isatty() else None
        self._task = None if self._bar is None else self._bar.add_task("", total=total)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, what: str) -> None:
        """A part is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=what)
            return
        left = (time.monotonic() - self._start) / self._done * (self._total - self._done)
        more = f", {duration(left)} left" if left >= 1 else ""
        print(f"[{self._done}/{self._total}{more}] {what}", file=sys.stderr, flush=True)


def _bar() -> Any:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
        from rich.table import Column
    except ImportError:
        return None
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # what is narrow is cut here
    return Bar(
        BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False, table_column=rest),
        console=Console(stderr=True), transient=True, expand=True,
    )  # fmt: skip


def duration(seconds: float) -> str:
    """In whole seconds, or from two minutes on in minutes."""
    if seconds < 119.5:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"


def about(seconds: float) -> str:
    """In whole minutes, for an estimate."""
    minutes = round(seconds / 60)
    return "less than a minute" if seconds < 45 else f"about {minutes} minute{'s' * (minutes > 1)}"
