"""``python -m benchmarks prove``; see ``--help``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from seqnets.cores import cores
from seqnets.errors import BackendError, DataError
from seqnets.table import print_table

DESCRIPTION = """Prove the kernels on the GPU that is here: judge them against the cell's step in float64, for each cell, dtype and
schedule, then time layers beside cuDNN, then the variants to choose between. The most valuable comes first, and all ends when the
time is over. Every result is kept in DIR/proof.json as it comes; a call on the same folder goes on with what was not reached. It needs
torch and Triton alone (--tests: pytest)."""
STATUS = """Exit status: 0 where all that was reached agrees, 1 where anything disagrees, fails, crashes or hangs, 2 where nothing can be
proven, 130 where it was interrupted."""
LEAST_MINUTES = 0.5  # to start processes and compile the first kernels
TESTS_SHARE = 0.5  # of the time, where --tests asks for them; they have more where the rest ends early


def prove(arguments: list[str]) -> int:
    """The exit status."""
    options = _parse(arguments)
    try:
        return _prove(options, ["python", "-m", "benchmarks", "prove", *arguments])
    except (BackendError, DataError) as error:
        print(error, file=sys.stderr)
        return 2


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks prove", description=DESCRIPTION, epilog=STATUS)
    parser.add_argument("--minutes", type=float, default=6, metavar="M", help="when all ends (default: 6)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="default: runs/prove/<GPU>, or runs/prove/rehearsal with --dry"
    )
    parser.add_argument(
        "--dry", action="store_true", help="rehearse without a GPU: compile and launch on a stub that computes nothing"
    )
    parser.add_argument(
        "--tests", action="store_true", help="run tests/gpu too, in as many processes as there are cores"
    )
    parser.add_argument(
        "--jobs", type=_positive, default=cores(), metavar="N", help="processes that check (default: cores)"
    )
    parser.add_argument("--commit", metavar="SHA", help="of the source, where this is a copy without its .git")
    options = parser.parse_args(arguments)
    if not options.minutes >= LEAST_MINUTES:
        parser.error(
            f"--minutes must be at least {LEAST_MINUTES}, in which the first kernels compile, not {options.minutes:g}"
        )
    return options


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _prove(options: argparse.Namespace, command: list[str]) -> int:
    # after the arguments are known to be right, as these take seconds to import
    from benchmarks.prove import gpu, stub_gpu, suite
    from benchmarks.prove.items import phases
    from benchmarks.prove.record import Record
    from benchmarks.prove.tables import heading, markdown, tables, verdict
    from benchmarks.prove.work import prepare
    from benchmarks.prove.workers import run

    began = time.monotonic()
    if options.dry:
        stub_gpu.install()
    else:
        gpu.refuse()
    here = gpu.surroundings()
    if options.commit:
        here["commit"] = options.commit
    name = "rehearsal" if options.dry else "-".join(here["gpu"].lower().split())
    folder = options.output or Path("runs", "prove", name)
    record = Record(folder, here, options.dry)
    results = record.results
    this_run: dict[str, Any] = {"command": command, **gpu.now(), "minutes": options.minutes, "seconds": 0.0}
    results["runs"].append(this_run)
    print("\n".join(heading(results)), flush=True)

    seconds = 60 * options.minutes
    share = 1 - TESTS_SHARE if options.tests else 1
    planned = phases(options.dry)
    todo = {phase.name: [task for task in phase.tasks if not record.knows(task.name)] for phase in planned}
    logs = Path(tempfile.mkdtemp(prefix="seqnets-prove-"))

    def keep() -> None:
        results["not_reached"] = [task.name for tasks in todo.values() for task in tasks]
        this_run["seconds"] = round(time.monotonic() - began, 1)
        record.write()

    interrupted = False

    try:
        for phase in planned:
            number = options.jobs if phase.parallel else 1
            end = began + seconds * share * phase.share
            setup = partial(prepare, "cpu" if options.dry else "cuda", options.dry)
            with closing(run(todo[phase.name], number, setup, logs, end)) as outcomes:
                for outcome in outcomes:
                    todo[phase.name].remove(outcome.task)
                    item = record.add(phase.name, outcome)
                    keep()
                    _tell(item, time.monotonic() - began)
        if options.tests:
            left = began + seconds - time.monotonic()
            print(f"{time.monotonic() - began:6.1f} s  tests/gpu, at most {left:.0f} s", flush=True)
            results["tests"] = suite.run_tests(left, options.dry)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        this_run |= {"at_end": gpu.now()}
        keep()
        shutil.rmtree(logs, ignore_errors=True)
    (folder / "tables.md").write_text(markdown(results), encoding="utf-8")
    for table in tables(results):
        print(f"\n{table.title}")
        print_table(table.header, table.rows)
    print(f"\n{verdict(results)} Every result: {record.path}; tables: {folder / 'tables.md'}")
    if interrupted:
        print("interrupted; the same command with the same --output goes on", file=sys.stderr)
        return 130
    bad = {item["status"] for item in results["items"]} - {"agrees", "done", "not served"}
    return 1 if bad or (results["tests"] or {}).get("failed") else 0


def _tell(item: dict[str, Any], seconds: float) -> None:
    """A line for each item, as it comes."""
    found = item["found"]
    error = (
        f", error {found['error_over_allowed']:.2g} of what is allowed"
        if found.get("agrees") is not None and found["error_over_allowed"] is not None
        else ""
    )
    compiled = (
        f", {found['compiled']} kernels compiled in {found['compile_seconds']:.1f} s" if found.get("compiled") else ""
    )
    why = f": {item['why']}" if item["why"] else ""
    print(f"{seconds:6.1f} s  {item['name']}: {item['status']}{error}{compiled}{why}", flush=True)
