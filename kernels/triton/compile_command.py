"""Implements ``python -m seqnets.kernels compile``, which fills Triton's cache from the command line."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

import torch

from seqnets.cells import CELLS, Cell
from seqnets.cores import cores
from seqnets.errors import CellError
from seqnets.interrupts import interrupted_status
from seqnets.kernels.arguments import DTYPES, cell, positive, why_nothing_compiles
from seqnets.kernels.triton.planning.arch import ARCHS
from seqnets.kernels.triton.trial import Variant
from seqnets.progress import Progress, duration

if TYPE_CHECKING:
    from seqnets.kernels.triton.compiling import Outcome, Place, Refused, Request

DESCRIPTION = """Compile beforehand, in processes side by side, the kernels that layers would compile at their first call, in
inference and in training, and keep them in Triton's cache (TRITON_CACHE_DIR), where those layers find them. A layer has one
direction and no lengths unless options say otherwise. Kernels depend on the hidden size, not on the input's, the batch or the
time steps. Exit status: 0 if all that the capacity rule plans is compiled, 1 if a kernel is not, 2 if nothing can be compiled."""  # noqa: E501


def add_compile_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    named = f"of {', '.join(CELLS)}, or package.module:cell for one of your own"
    default = "default: %(default)s"
    parser.add_argument("--cell", type=cell, nargs="+", required=True, metavar="NAME", help=named)
    parser.add_argument(
        "--hidden", type=positive, nargs="+", required=True, metavar="H", help="hidden sizes, all heads together"
    )
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", required=True)
    parser.add_argument("--heads", type=positive, default=1, metavar="N", help=default)
    parser.add_argument(
        "--precision", choices=("tf32", "ieee"), nargs="+", default=["tf32"], help="of fp32 products; default: tf32"
    )
    parser.add_argument(
        "--schedule", choices=("resident", "tiled"), nargs="+", default=[None],
        help="default: as the capacity rule chooses",
    )  # fmt: skip
    parser.add_argument("--bidirectional", action="store_true", help="layers of two directions")
    parser.add_argument("--ragged", action="store_true", help="with lengths")
    parser.add_argument("--no-bias", action="store_true", help="layers without biases")
    parser.add_argument("--all-states", action="store_true", help="which return all states at every step")
    parser.add_argument("--step-masks", action="store_true", help="masks per time step, not per sequence")
    parser.add_argument("--inference", action="store_true", help="not for training")
    parser.add_argument("--arch", choices=ARCHS, nargs="+", help="default: the GPU that is here")
    parser.add_argument("--jobs", type=positive, metavar="N", help="processes at a time; default: the cores")


def compile_command(arguments: argparse.Namespace) -> int:
    """Compile the kernels that the arguments ask for, and return the exit status."""
    why = why_nothing_compiles(arguments.hidden, arguments.heads)
    if why is not None:
        return _refuse(why)
    from seqnets.kernels.triton.compiling import compile_all, missing, seconds_of  # needs Triton

    start = time.monotonic()
    places = _places(arguments)
    if isinstance(places, str):
        return _refuse(places)
    try:
        requests, refusals = _plan(arguments, places)
    except CellError as error:
        return _refuse(str(error))
    for refused in dict.fromkeys(map(str, refusals)):
        print(f"not planned: {refused}", file=sys.stderr)
    if not requests:
        return _refuse("no kernel is planned for what is asked")
    absent, jobs = len(missing(requests)), arguments.jobs or cores()
    there = len(requests) - absent
    told = f", which will take about {duration(seconds_of(absent, jobs))}" if absent else ""
    print(f"{len(requests)} kernels, {there} of them in the cache, {absent} to be compiled{told}", file=sys.stderr)
    try:
        with Progress(absent) as progress:
            outcomes = compile_all(requests, jobs, lambda outcome: progress.advance(_line(outcome)))
    except KeyboardInterrupt:
        print("interrupted; what is compiled is kept, and found when the command is repeated", file=sys.stderr)
        return interrupted_status()
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    for outcome in failed:
        print(f"not compiled: {outcome.request}: {outcome.failure}", file=sys.stderr)
    cached = sum(outcome.cached for outcome in outcomes)
    compiled = len(outcomes) - cached - len(failed)
    more = f", {len(failed)} failed" if failed else ""
    print(
        f"{len(outcomes)} kernels: {compiled} compiled, {cached} were in the cache{more}; "
        f"{duration(time.monotonic() - start)} with up to {jobs} processes"
    )
    return int(bool(failed))


def _refuse(why: str) -> int:
    print(f"nothing can be compiled: {why}", file=sys.stderr)
    return 2


def _places(arguments: argparse.Namespace) -> list[Place] | str:
    from seqnets.kernels.triton.compiling import place_here, place_of

    if arguments.arch is not None:
        return [place_of(ARCHS[name]) for name in dict.fromkeys(arguments.arch)]
    if not torch.cuda.is_available():
        return f"PyTorch finds no GPU here; name one by --arch ({', '.join(ARCHS)})"
    here = place_here(torch.device("cuda", torch.cuda.current_device()))
    return here if isinstance(here, str) else [here]


def _plan(arguments: argparse.Namespace, places: list[Place]) -> tuple[list[Request], list[Refused]]:
    from seqnets.kernels.triton.compiling import plan_variant

    requests: dict[Request, None] = {}
    refusals = []
    for own, hidden, name, schedule, place in product(
        arguments.cell, arguments.hidden, arguments.dtype, arguments.schedule, places
    ):
        for precision in dict.fromkeys(arguments.precision if name == "fp32" else ("ieee",)):
            for variant in _variants(own, hidden, name, arguments):
                planned = plan_variant(own, variant, place, schedule, precision)
                if isinstance(planned, list):
                    requests.update(dict.fromkeys(planned))
                else:
                    refusals.append(planned)
    return list(requests), refusals


def _variants(own: Cell, hidden: int, dtype: str, arguments: argparse.Namespace) -> Iterator[Variant]:
    """Yield the variants of a layer's calls: in inference and, unless only that is asked for, in training."""
    for differentiated in (False,) if arguments.inference else (False, True):
        yield Variant(
            own.key,
            N=arguments.heads,
            U=hidden // arguments.heads,
            D=1 + arguments.bidirectional,
            ragged=arguments.ragged,
            per_step=(arguments.step_masks,) * len(own.masks),
            dtype=DTYPES[dtype],
            bias=not arguments.no_bias,
            differentiated=differentiated,
            keep_r=differentiated,
            all_states=arguments.all_states and len(own.states) > 1,
        )


def _line(outcome: Outcome) -> str:
    return f"{outcome.request}: {'failed' if outcome.failure else f'{outcome.seconds:.1f} s'}"
