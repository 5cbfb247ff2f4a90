"""Prints tables on standard output: with rich on a terminal, if it is installed, else in plain columns."""

from __future__ import annotations

import sys
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def print_table(header: Sequence[str], rows: Rows) -> None:
    """Print a table on standard output. The last column is free text, which is not padded."""
    if sys.stdout.isatty():
        try:
            _print_rich(header, rows)
            return
        except ImportError:
            pass
    print(plain_table(header, rows))


def plain_table(header: Sequence[str], rows: Rows) -> str:
    lines = [header, *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )


def _print_rich(header: Sequence[str], rows: Rows) -> None:
    from rich import box, get_console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    get_console().print(table)
