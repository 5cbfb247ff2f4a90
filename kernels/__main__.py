"""``python -m seqnets.kernels source | report | tune``."""

from __future__ import annotations

import argparse
import sys

from seqnets.cells import CELLS
from seqnets.errors import CellError
from seqnets.kernels.analysis.report import add_report_arguments, report_command
from seqnets.kernels.arguments import cell
from seqnets.kernels.availability import triton_version
from seqnets.kernels.planning.tune_command import add_tune_arguments, tune_command


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m seqnets.kernels", description="The kernels that are generated from cells."
    )
    commands = parser.add_subparsers(required=True, metavar="source | report | tune")
    source = commands.add_parser("source", help="print the Triton functions generated from a cell")
    source.add_argument("cell", type=cell, help=f"of {', '.join(CELLS)}, or package.module:cell for one of your own")
    source.set_defaults(command=source_command)
    report = commands.add_parser("report", help="compile ahead of time and count registers, barriers and more")
    add_report_arguments(report)
    report.set_defaults(command=report_command)
    tune = commands.add_parser("tune", help="measure plans on this GPU and keep the fastest")
    add_tune_arguments(tune)
    tune.set_defaults(command=tune_command)
    arguments = parser.parse_args()
    return arguments.command(arguments)


def source_command(arguments: argparse.Namespace) -> int:
    """The exit status."""
    if triton_version() is None:
        print("the source cannot be generated: Triton is not installed (pip install triton)", file=sys.stderr)
        return 2
    from seqnets.kernels.generation.module import generate

    try:
        print(generate(arguments.cell).source, end="")
    except CellError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
