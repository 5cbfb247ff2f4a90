"""Shows the progress of a command on standard error.

On a terminal this is a progress bar, if rich is installed; otherwise it is a line for each part.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


class Progress:
    """Shows how many of a command's parts are done, and estimates the time left.

    Args:
        total: the number of parts.
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
        """Report that one more part is done.

        Args:
            what: a description of that part.
        """
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
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # on a narrow terminal this column is cut
    return Bar(
        BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False, table_column=rest),
        console=Console(stderr=True), transient=True, expand=True,
    )  # fmt: skip


def duration(seconds: float) -> str:
    """Format a duration in whole seconds, at least one, or in minutes from two minutes on."""
    if seconds < 119.5:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"


def about(seconds: float) -> str:
    """Format an estimate of a duration in whole minutes."""
    minutes = round(seconds / 60)
    return "less than a minute" if seconds < 45 else f"about {minutes} minute{'s' * (minutes > 1)}"
