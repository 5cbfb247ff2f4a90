"""Implements ``python -m seqnets.kernels tune``, which measures plans and keeps the fastest."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

import torch

from seqnets.cells import CELLS
from seqnets.errors import BackendError, CellError
from seqnets.kernels.arguments import DTYPES, cell, positive
from seqnets.kernels.availability import why_unavailable
from seqnets.kernels.timing import BATCH, STEPS

if TYPE_CHECKING:
    from seqnets.kernels.tuning.autotune import Tuned

DESCRIPTION = """Measure how fast each plan that fits this GPU runs a cell, forward and backward, and keep the fastest for
later runs, for as long as the GPU, its driver, torch, Triton and the kernels stay as they are. SEQNETS_TUNED=0 ignores
what is kept. It takes minutes: every plan is compiled. Exit status: 0 where plans were kept, 2 where nothing can be tuned."""  # noqa: E501


def add_tune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    named = f"of {', '.join(CELLS)}, or package.module:cell for one of your own"
    parser.add_argument("--cell", type=cell, required=True, metavar="NAME", help=named)
    parser.add_argument("--hidden", type=positive, required=True, metavar="H", help="hidden size, all heads together")
    parser.add_argument("--dtype", choices=DTYPES, required=True)
    parser.add_argument("--heads", type=positive, default=1, metavar="N", help="default: 1")
    parser.add_argument("--batch", type=positive, default=BATCH, metavar="B", help=f"to measure on (default: {BATCH})")
    parser.add_argument("--steps", type=positive, default=STEPS, metavar="T", help=f"to measure on (default: {STEPS})")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, and nothing else")


def tune_command(arguments: argparse.Namespace) -> int:
    """Tune the cell, print what was found, and return the exit status: 0, or 2 if nothing can be tuned."""
    unavailable = why_unavailable("cuda")
    if unavailable is not None:
        print(f"nothing can be tuned here: {unavailable}", file=sys.stderr)
        return 2
    from seqnets.kernels.tuning.autotune import tune  # imported late, because it needs Triton

    dtype, sizes = DTYPES[arguments.dtype], (arguments.heads, arguments.batch, arguments.steps)
    try:
        found = tune(arguments.cell, arguments.hidden, dtype, *sizes)
    except (BackendError, CellError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.json:
        gpu = torch.cuda.get_device_name()
        about = {"gpu": gpu, "cell": arguments.cell.name, "hidden": arguments.hidden, "dtype": arguments.dtype}
        about |= dict(zip(("heads", "batch", "steps"), sizes, strict=True))
        print(json.dumps({**about, "passes": [as_dict(tuned) for tuned in found]}, indent=1))
    else:
        print("\n".join(summary(tuned) for tuned in found))
    return 0


def as_dict(found: Tuned) -> dict[str, object]:
    """Return what was found for one pass as JSON types."""
    return {
        "pass": "backward" if found.backward else "forward",
        "plan": found.plan._asdict(),
        "default": found.default._asdict(),
        "milliseconds": found.milliseconds,
        "default_milliseconds": found.default_milliseconds,
        "tried": found.tried,
        "rejected": [{"plan": plan._asdict(), "why": why} for plan, why in found.rejected.items()],
    }


def summary(found: Tuned) -> str:
    """Return a line about the plan that is kept, and a line for each plan that was rejected."""
    from seqnets.kernels.tuning.autotune import describe

    kept = f"{'backward' if found.backward else 'forward'}: {describe(found.plan)}: {found.milliseconds:.3f} ms"
    if found.plan == found.default:
        kept += ", as the rule has it"
    else:
        kept += f", and by the rule {describe(found.default)}: {found.default_milliseconds:.3f} ms"
    lines = [f"{kept}; the fastest of {found.tried}, of which {len(found.rejected)} were rejected"]
    return "\n".join([*lines, *(f"  rejected {describe(plan)}: {why}" for plan, why in found.rejected.items())])
