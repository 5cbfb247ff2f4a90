"""Runs ``python -m seqnets.kernels source | compile | report | tune``."""

from __future__ import annotations

import argparse
import sys

from seqnets.cells import CELLS, Cell
from seqnets.errors import CellError
from seqnets.interrupts import interruptible
from seqnets.kernels.arguments import cell as cell_named
from seqnets.kernels.availability import triton_version
from seqnets.kernels.report.command import add_report_arguments, report_command
from seqnets.kernels.triton.compile_command import add_compile_arguments, compile_command
from seqnets.kernels.tuning.command import add_tune_arguments, tune_command


def main() -> int:
    """Run the command and return the exit status."""
    with interruptible():
        return _main()


def _main() -> int:
    parser = argparse.ArgumentParser(
        "python -m seqnets.kernels", description="The kernels that are generated from cells."
    )
    commands = parser.add_subparsers(required=True, metavar="source | compile | report | tune")
    source = commands.add_parser("source", help="print the functions generated from a cell")
    source.add_argument(
        "cell", type=cell_named, help=f"of {', '.join(CELLS)}, or package.module:cell for one of your own"
    )
    source.add_argument(
        "--target", choices=("triton", "cpp"), default="triton", help="for GPUs, or for the CPU (default: triton)"
    )
    source.set_defaults(command=source_command)
    compiles = commands.add_parser("compile", help="fill Triton's cache, in processes side by side")
    add_compile_arguments(compiles)
    compiles.set_defaults(command=compile_command)
    report = commands.add_parser("report", help="compile ahead of time and count registers, barriers and more")
    add_report_arguments(report)
    report.set_defaults(command=report_command)
    tune = commands.add_parser("tune", help="measure plans on this GPU and keep the fastest")
    add_tune_arguments(tune)
    tune.set_defaults(command=tune_command)
    arguments = parser.parse_args()
    return arguments.command(arguments)


def source_command(arguments: argparse.Namespace) -> int:
    """Print the source generated from a cell.

    Returns:
        The exit status: 0, or 2 if the source cannot be generated.
    """
    if arguments.target == "triton" and triton_version() is None:
        print("the source cannot be generated: Triton is not installed (pip install triton)", file=sys.stderr)
        return 2
    try:
        print(_source(arguments.cell, arguments.target), end="")
    except CellError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _source(cell: Cell, target: str) -> str:
    if target == "cpp":
        from seqnets.kernels.cpp.library import source

        return source(cell)
    from seqnets.kernels.triton.module import generate

    return generate(cell).source


if __name__ == "__main__":
    sys.exit(main())
