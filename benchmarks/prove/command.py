"""``python -m benchmarks prove``; see ``--help``."""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path

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
    began = time.monotonic()
    # once the arguments are known to be right, as these take seconds to import
    from benchmarks.prove import gpu, stub_gpu
    from benchmarks.prove.items import phases
    from benchmarks.prove.proof import Proof
    from benchmarks.prove.record import Record
    from benchmarks.prove.tables import heading, markdown, tables, verdict
    from benchmarks.prove.work import prepare

    if options.dry:
        stub_gpu.install()
    else:
        gpu.refuse()
    here = gpu.surroundings()
    if options.commit:
        here["commit"] = options.commit
    name = "rehearsal" if options.dry else "-".join(here["gpu"].lower().split())
    record = Record(options.output or Path("runs", "prove", name), here, options.dry)
    print("\n".join(heading(record.results)), flush=True)
    proof = Proof(record, phases(options.dry), command, options.minutes, partial(print, flush=True), began)
    ended: tuple[str, int] | None = None
    try:
        share = 1 - TESTS_SHARE if options.tests else 1
        proof.run(options.jobs, partial(prepare, "cpu" if options.dry else "cuda", options.dry), share)
        if options.tests:
            proof.run_tests()
        proof.conclude()
        record.save("tables.md", markdown(record.results))
    except KeyboardInterrupt:
        ended = "interrupted; the same command with the same --output goes on", 130
    except DataError as error:  # the folder cannot be written any more: what was reached is told below
        ended = str(error), 2
    results = record.results
    for table in tables(results):
        print(f"\n{table.title}")
        print_table(table.header, table.rows)
    print(f"\n{verdict(results)}")
    if ended is None:
        print(f"Every result: {record.path}; tables: {record.path.with_name('tables.md')}")
        bad = {item["status"] for item in results["items"]} - {"agrees", "done", "not served"}
        return 1 if bad or (results["tests"] or {}).get("failed") else 0
    print(ended[0], file=sys.stderr)
    return ended[1]
