"""Implements ``python -m seqnets.kernels report``, which reports on compiled kernels for GPUs that may be absent."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from seqnets.cells import CELLS, Cell
from seqnets.errors import CellError
from seqnets.kernels.arguments import DTYPES, cell, positive, why_nothing_compiles
from seqnets.kernels.triton.planning.arch import ARCHS, Arch
from seqnets.kernels.triton.planning.capacity import Demand, Refusal, choose
from seqnets.kernels.triton.planning.plan import Plan
from seqnets.table import print_table

if TYPE_CHECKING:
    from seqnets.kernels.triton.cases import Case

DESCRIPTION = """Compile the kernels of cells ahead of time, as the capacity rule plans them for a GPU, and read the result:
registers, spills and shared memory as the assembler states them; barriers, instructions and tensor-core instructions per
time step, of one warp, counted in the disassembly. The floor is a model of the least time per step that these counts allow,
not a measurement. Exit status: 0 if every kernel that is planned compiles without spills and fits, 1 if one does not, 2 if
nothing can be compiled."""  # noqa: E501
RATES = {torch.float16: "fp16", torch.bfloat16: "fp16", torch.float64: "fp64"}


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    named = f"of {', '.join(CELLS)}, or package.module:cell for one of your own (default: these)"
    default = "default: %(default)s"
    parser.add_argument("--cell", type=cell, nargs="+", default=list(CELLS.values()), metavar="NAME", help=named)
    parser.add_argument(
        "--hidden", type=positive, nargs="+", default=[128], metavar="H", help="hidden sizes; " + default
    )
    parser.add_argument("--heads", type=positive, default=1, metavar="N", help=default)
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", default=["bf16"], help=default)
    parser.add_argument("--precision", choices=("tf32", "ieee"), default="tf32", help="of fp32 products; " + default)
    parser.add_argument("--arch", choices=ARCHS, nargs="+", default=list(ARCHS), help="default: all")
    parser.add_argument("--schedule", choices=("resident", "tiled"), help="default: as the capacity rule chooses")
    parser.add_argument("--ragged", action="store_true", help="with lengths, in two directions")
    parser.add_argument("--inference", action="store_true", help="forward only, keeping nothing for backward")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON array on standard output, and nothing else")
    form.add_argument("--markdown", action="store_true", help="the table as Markdown")


def report_command(arguments: argparse.Namespace) -> int:
    """Compile the kernels, print the report, and return the exit status.

    Returns:
        0 if every planned kernel compiles without spills and fits, 1 if one does not, 2 if nothing can be compiled.
    """
    why = why_nothing_compiles(arguments.hidden, arguments.heads)
    if why is not None:
        print(f"nothing can be compiled: {why}", file=sys.stderr)
        return 2
    try:
        cases = list(_cases(arguments))
    except CellError as error:
        print(error, file=sys.stderr)
        return 2
    rows = []
    for number, case in enumerate(cases, 1):
        if sys.stderr.isatty():
            print(f"\r{number}/{len(cases)} kernels", end="", file=sys.stderr, flush=True)
        rows.append(describe(*case))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        _print(rows, arguments.markdown)
    return int(any(row["schedule"] and (row["spills"] or not row["fits"]) for row in rows))


def _cases(arguments: argparse.Namespace) -> Iterator[tuple[Cell, Case, Demand, Arch, str | None]]:
    from seqnets.kernels.triton.cases import Case  # imported late, because it needs Triton
    from seqnets.kernels.triton.planning.select import demand_of

    for own in arguments.cell:
        for hidden in arguments.hidden:
            for name in arguments.dtype:
                for backward in (False,) if arguments.inference else (False, True):
                    units, dtype = hidden // arguments.heads, DTYPES[name]
                    demand = demand_of(own, units, arguments.heads, dtype, backward)
                    if dtype is torch.float32:
                        demand = demand._replace(precision=arguments.precision)
                    directions = 2 if arguments.ragged else 1
                    case = Case(
                        units, arguments.heads, dtype, backward, not arguments.inference, arguments.ragged, directions
                    )
                    for arch in arguments.arch:
                        yield own, case, demand, ARCHS[arch], arguments.schedule


def describe(own: Cell, case: Case, demand: Demand, arch: Arch, schedule: str | None = None) -> dict[str, Any]:
    """Compile one kernel and return its row of the report, in JSON types, with None for unknown values."""
    from seqnets.kernels.report.compiled import examine

    plan = choose(demand, arch, schedule)
    row: dict[str, Any] = {
        "cell": own.name,
        "pass": "backward" if case.backward else "forward",
        "hidden": case.units * case.heads,
        "heads": case.heads,
        "dtype": next(name for name, dtype in DTYPES.items() if dtype is case.dtype),
        "precision": demand.precision if case.dtype is torch.float32 else None,
        "arch": arch.name,
        "schedule": None, "why": plan.why, "tile": None, "registers": None, "spills": None, "shared_memory": None,
        "fits": None, "barriers_per_step": None, "instructions_per_step": None,
        "tensor_core_instructions_per_step": None, "not_counted": None, "model_floor_ns_per_step": None,
        "compile_seconds": None,
    }  # fmt: skip
    if isinstance(plan, Refusal):
        return row
    compiled = examine(own, case, plan, arch)
    used, (step, reason) = compiled.resources, compiled.counted
    row |= {
        "schedule": plan.schedule,
        "tile": {
            "rows": plan.block_b, "units": plan.block_u, "k": plan.block_k or None, "warps": plan.warps,
            "stages": plan.stages,
        },
        "registers": used.registers,
        "spills": used.spills,
        "shared_memory": used.shared_memory,
        "fits": used.shared_memory <= arch.shared_limit,
        "not_counted": reason,
        "compile_seconds": round(compiled.seconds, 3),
    }  # fmt: skip
    if step is not None:
        row |= {
            "barriers_per_step": step.barriers,
            "instructions_per_step": step.instructions,
            "tensor_core_instructions_per_step": step.tensor_core,
            "model_floor_ns_per_step": round(_floor(demand, plan, arch, step.barriers)),
        }
    return row


def _floor(demand: Demand, plan: Plan, arch: Arch, barriers: int) -> float:
    """Return the least nanoseconds per time step, according to the roofline model."""
    from seqnets.kernels.report.roofline import floors, gpu

    inner = plan.block_u if plan.schedule == "resident" else demand.units
    weights = demand.gates * plan.block_u * inner
    rate = RATES.get(demand.dtype) or ("tf32" if demand.precision == "tf32" else "fp32")
    return floors(
        gpu(arch.name),
        weight_bytes=weights * demand.dtype.itemsize,
        barriers=barriers,
        products=plan.block_b * weights,
        rate=rate,
        launches=int(plan.schedule == "tiled"),
    ).step


NOTE = "barriers, instructions and tensor core: per time step, of one warp; floor: a model, not a measurement"
HEADER = (
    "cell", "pass", "H", "dtype", "arch", "schedule", "tile", "warps", "registers", "spills", "shared KiB", "fits",
    "barriers", "instructions", "tensor core", "floor ns (model)", "note",
)  # fmt: skip


def _print(rows: list[dict[str, Any]], markdown: bool) -> None:
    lines = [line_of(row) for row in rows]
    if markdown:
        table = [HEADER, ("---",) * len(HEADER), *lines]
        print("\n".join(f"| {' | '.join(line)} |" for line in table))
    else:
        print_table(HEADER, lines)
        print(NOTE)


def line_of(row: dict[str, Any]) -> list[str]:
    """Return the table cells of a row of `describe`, in the order of `HEADER`."""
    hidden = f"{row['hidden']} in {row['heads']}" if row["heads"] > 1 else str(row["hidden"])
    dtype = row["dtype"] if row["precision"] is None else f"{row['dtype']} {row['precision']}"
    about = [row["cell"], row["pass"], hidden, dtype, row["arch"]]
    if row["schedule"] is None:
        return [*about, "none", *[""] * (len(HEADER) - len(about) - 2), row["why"]]
    tile = row["tile"]
    size = " x ".join(str(tile[name]) for name in ("rows", "units", "k") if tile[name])
    counted = (
        "barriers_per_step",
        "instructions_per_step",
        "tensor_core_instructions_per_step",
        "model_floor_ns_per_step",
    )
    return [
        *about,
        row["schedule"],
        size,
        str(tile["warps"]),
        str(row["registers"]),
        str(row["spills"]),
        f"{row['shared_memory'] / 1024:.4g}",
        "yes" if row["fits"] else "no",
        *("?" if row[name] is None else str(row[name]) for name in counted),
        row["not_counted"] or "",
    ]
