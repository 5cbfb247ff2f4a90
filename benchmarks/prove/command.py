"""Implements ``python -m benchmarks prove``; see ``--help``."""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from seqnets.cores import cores
from seqnets.errors import BackendError, DataError
from seqnets.interrupts import interrupted_status
from seqnets.kernels.arguments import why_no_cache
from seqnets.kernels.availability import why_unavailable
from seqnets.table import print_table

DESCRIPTION = """Prove the kernels on the GPU that is here: judge them against the cell's step in float64, for each cell, dtype and
schedule, then time layers beside cuDNN, then try variants. The most valuable items come first, and the run stops when its time is
over. Every result is written to DIR/proof.json as it comes; a second call on the same folder resumes with what was not reached. Needs
torch and Triton alone (--tests: pytest too)."""  # noqa: E501
STATUS = (
    "Exit status: 0 where all that was reached agrees, 1 where anything disagrees, fails, crashes or hangs, "
    "2 where nothing can be\nproven, 130 where it was interrupted (143 by SIGTERM)."
)
LEAST_MINUTES = 0.5  # to start processes and compile the first kernels
TESTS_SHARE = 0.5  # of the time, with --tests; the tests get more if the rest ends early


def prove(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    try:
        return _prove(options, ["python", "-m", "benchmarks", "prove", *arguments])
    except (BackendError, DataError) as error:
        print(error, file=sys.stderr)
        return 2


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks prove", description=DESCRIPTION, epilog=STATUS)
    parser.add_argument("--minutes", type=float, default=6, metavar="M", help="stop after so many minutes (default: 6)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="default: runs/prove/<GPU>, or runs/prove/rehearsal with --dry"
    )
    parser.add_argument(
        "--dry",
        action="store_true",
        help=(
            "rehearse every phase without a GPU, on a few small cases: "
            "compile and launch on a stub that computes nothing"
        ),
    )
    parser.add_argument(
        "--tests", action="store_true", help="run tests/gpu too, in as many processes as there are cores"
    )
    parser.add_argument(
        "--jobs",
        type=_positive,
        default=cores(),
        metavar="N",
        help="processes that check kernels side by side (default: %(default)s, the cores)",
    )
    parser.add_argument(
        "--commit", type=_commit, metavar="SHA", help="of the source, where this is a copy without its .git"
    )
    parser.add_argument(
        "--retry", action="store_true", help="do anew what failed, crashed, hung or had no memory in DIR"
    )
    options = parser.parse_args(arguments)
    if options.tests and importlib.util.find_spec("pytest") is None:
        parser.error("--tests needs pytest, which is not installed (pip install pytest pytest-xdist)")
    if not LEAST_MINUTES <= options.minutes < math.inf:
        parser.error(
            f"--minutes is {options.minutes:g}, "
            f"but must be a finite number of at least {LEAST_MINUTES}: the first kernels take as long to compile"
        )
    return options


def _commit(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{7,40}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a commit: 7 to 40 hexadecimal digits")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _prove(options: argparse.Namespace, command: list[str]) -> int:
    began = time.monotonic()
    # imported only after the arguments are checked, as it takes seconds
    from benchmarks.prove import gpu, stub_gpu
    from benchmarks.prove.items import phases
    from benchmarks.prove.proof import Proof
    from benchmarks.prove.record import Record
    from benchmarks.prove.tables import heading, markdown, summary, tables
    from benchmarks.prove.work import prepare

    if options.dry:
        unavailable = why_unavailable("cuda")  # a compiler is needed all the same
        if unavailable is not None:
            raise BackendError(f"nothing can be rehearsed: {unavailable}")
        if (why := why_no_cache()) is not None:
            raise BackendError(f"nothing can be rehearsed: {why}")
        stub_gpu.install()
    else:
        gpu.refuse(options.jobs)
        if (why := why_no_cache()) is not None:
            raise BackendError(f"nothing can be proven: {why}")
    here = gpu.environment()
    if options.commit and here["commit"] is not None:
        raise BackendError(f"--commit is for a copy without its .git; this is a clone at {here['commit']}")
    here["commit"] = here["commit"] or options.commit
    if here["commit"] is None:
        print(
            "the commit is not known, as there is no .git here: name it by --commit for a result to keep",
            file=sys.stderr,
        )
    name = "rehearsal" if options.dry else "-".join(here["gpu"].lower().split())
    record = Record(options.output or Path("runs", "prove", name), here, options.dry)
    results = record.results
    if options.retry:
        record.forget_broken()
    print("\n".join(heading(results)), flush=True)
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")
    proof = Proof(record, phases(options.dry), command, options.minutes, partial(print, flush=True), began)
    status, why = 0, None
    try:
        share = 1 - TESTS_SHARE if options.tests else 1
        proof.run(options.jobs, partial(prepare, options.dry), share)
        if options.tests:
            proof.run_tests()
    except KeyboardInterrupt:
        status, why = interrupted_status(), "interrupted; the same command with the same --output resumes"
    except (BackendError, DataError) as error:  # the results so far are printed below
        status, why = 2, str(error)
    try:
        proof.conclude()
        record.save("tables.md", markdown(results))
    except DataError as error:
        status, why = 2, str(error)
    for table in tables(results):
        print(f"\n{table.title}")
        print_table(table.header, table.rows)
    if not any(proof.todo.values()):
        print(f"\nnothing is left to do in {record.path.parent}")
    print(f"\n{summary(results)} Every result: {record.path}; tables: {record.path.with_name('tables.md')}")
    if why is not None:
        print(why, file=sys.stderr)
    return status or _status(results, options.tests)


def _status(results: dict[str, Any], tested: bool) -> int:
    bad = {item["status"] for item in results["items"]} - {"agrees", "done", "not served"}
    if bad or (tested and (results["tests"]["failed"] or results["tests"]["status"] != "exit status 0")):
        return 1
    return 0 if results["items"] else 2
