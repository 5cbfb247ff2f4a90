"""Implements the command ``python -m seqnets.doctor``; see ``--help``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from itertools import product
from typing import Any

import torch

from seqnets.cells import CELLS
from seqnets.doctor.checks import CPP, Case, Check, check
from seqnets.doctor.environment import environment, where_it_ran
from seqnets.doctor.preparation import absent_kernels, seconds_of
from seqnets.interrupts import interruptible
from seqnets.kernels.arguments import DTYPES, cell, positive
from seqnets.kernels.availability import CHECK, interpreted, triton_version
from seqnets.kernels.timing import BATCH, STEPS
from seqnets.progress import Progress, about
from seqnets.table import print_table

TRITON_SCHEDULES = ("resident", "tiled")
SCHEDULES = (*TRITON_SCHEDULES, CPP)
DTYPES_ON_GPU = ("bf16", "fp16", "fp32")
HEADER = ("cell", "dtype", "hidden", "schedule", "pass", "result", "error/allowed", "ms", "torch ms", "compile s", "")

DESCRIPTION = f"""Check the fused kernels on this machine: what they run in, and for each cell, dtype, schedule and pass whether
they serve, their largest error against float64 relative to what the tolerance policy allows (agreement is at most 1), how long
they took to compile if that was not done before, and the median time of a layer (T={STEPS}, B={BATCH}) beside that of torch's
own. The schedule "cpp" stands for the kernels in C++, on the CPU. On a GPU the others are compiled first, in processes side by
side. Without one they run in Triton's interpreter, on the CPU, and are not timed. How long all takes is estimated beforehand."""  # noqa: E501
STATUS = """\
Exit status: 0 where all that is served agrees, 1 where anything disagrees or crashes, 2 where the arguments are wrong.
What kernels do not serve does not count: the table, or "result" and "reason" with --json, says why."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    with interruptible():
        return _main(arguments)


def _main(arguments: list[str] | None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parse(arguments)
    gpu = torch.cuda.is_available() and not interpreted()
    if not gpu and not interpreted() and triton_version() is not None:
        return _in_interpreter(arguments)
    device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
    here, where = environment(device), where_it_ran(device)
    os.environ[CHECK] = "0"  # the doctor does these checks itself
    # numpy warns about values that are masked or that saturate later
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="triton.runtime.interpreter")
    dtypes = options.dtype or (DTYPES_ON_GPU if gpu else DTYPES)
    schedules = options.schedule or (TRITON_SCHEDULES if gpu else SCHEDULES)
    hidden_sizes = options.hidden or [128 if gpu else 20]
    cases = [
        Case(chosen, DTYPES[dtype], hidden, schedule, backward)
        for chosen, dtype, hidden, schedule, backward in product(
            options.cell, dtypes, hidden_sizes, schedules, (False, True)
        )
    ]
    _compile(cases, device)
    checks = []
    with Progress(len(cases)) as progress:
        for case in cases:
            checks.append(check(case, device))
            progress.advance(" ".join(_row(checks[-1])[:6]))
    agrees = all(found.result in ("agrees", "not served", "not judged") for found in checks)
    if options.json:
        found = [found.as_dict() for found in checks]
        print(
            json.dumps({"environment": here, "gpu": gpu, "where": where, "agrees": agrees, "checks": found}, indent=1)
        )
    else:
        _print(here, where, checks, agrees)
    return 0 if agrees else 1


def _compile(cases: Sequence[Case], device: torch.device) -> None:
    """Print an estimate of the total time, and compile missing Triton kernels.

    A kernel that does not compile is reported by its check.
    """
    with redirect_stdout(sys.stderr):  # a step may print
        try:
            absent = absent_kernels(cases, device)
        except Exception as error:  # for example of a driver; the checks will meet it too
            print(f"nothing is compiled beforehand: {type(error).__name__}: {error}")
            absent = []
        took = about(seconds_of(cases, device, len(absent)))
    first = f", and before them {len(absent)} kernels to compile" if absent else ""
    print(f"{len(cases)} checks{first}: {took}", file=sys.stderr, flush=True)
    if absent:
        from seqnets.kernels.triton.compiling import compile_all

        with Progress(len(absent)) as progress:
            compile_all(absent, done=lambda outcome: progress.advance(f"compiled {outcome.request}"))


def _in_interpreter(arguments: list[str]) -> int:
    """Run the command again in Triton's interpreter, and return its exit status.

    This takes a new process, because Triton decides on import whether it compiles or interprets.
    """
    command = [sys.executable, "-m", "seqnets.doctor", *arguments]
    status = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}).returncode
    return status if status >= 0 else 128 - status


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m seqnets.doctor", description=DESCRIPTION, epilog=STATUS)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, and nothing else")
    parser.add_argument(
        "--cell", nargs="+", type=cell, default=list(CELLS.values()), metavar="NAME",
        help=f"of {', '.join(CELLS)} (default: all), or package.module:cell for one of your own",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", nargs="+", choices=DTYPES,
        help=(
            f"default: {', '.join(DTYPES_ON_GPU)} on a GPU, for under two minutes with 16 cores, by estimate; else all"
        ),
    )  # fmt: skip
    parser.add_argument(
        "--schedule", nargs="+", choices=SCHEDULES,
        help=f"default: {', '.join(TRITON_SCHEDULES)} on a GPU, else these and {CPP}",
    )  # fmt: skip
    parser.add_argument("--hidden", nargs="+", type=positive, metavar="H", help="default: 128 on a GPU, else 20")
    return parser.parse_args(arguments)


def _print(here: Mapping[str, Any], where: str, checks: Sequence[Check], agrees: bool) -> None:
    for name, value in here.items():
        shown = " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{name:16} {'-' if shown in (None, '') else shown}")
    print(f"\n{where}\n")
    reasons = list(dict.fromkeys(reason for found in checks if (reason := found.reason)))
    marks = {reason: f"[{number}]" for number, reason in enumerate(reasons, 1)}
    print_table(HEADER, [[*_row(found), marks.get(found.reason or "", "")] for found in checks])
    for reason, mark in marks.items():
        print(f"\n{mark} {reason}")
    counts = Counter(found.result for found in checks)
    served = set(counts) - {"not served"}
    verdict = (
        "Nothing is served"
        if not served
        else "All that is served agrees"
        if agrees
        else "Not all that is served agrees"
    )
    print(f"\n{verdict}: {', '.join(f'{n} {result}' for result, n in counts.items())}.")


def _row(found: Check) -> list[str]:
    shown = found.as_dict()
    seconds = [compilation.seconds for compilation in found.compiled if not compilation.cached]
    return [
        *(str(shown[name]) for name in ("cell", "dtype", "hidden", "schedule", "pass", "result")),
        f"{found.worst.ratio:.2g} ({found.worst.what})" if found.worst else "-",
        *(f"{time:.3f}" if time else "-" for time in (found.milliseconds, found.torch_milliseconds)),
        f"{sum(seconds):.1f}" if seconds else "cached" if found.compiled else "-",
    ]


if __name__ == "__main__":
    sys.exit(main())
