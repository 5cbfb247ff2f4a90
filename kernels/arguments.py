"""What commands take on their command lines."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout

import torch

from seqnets.cells import Cell, get_cell
from seqnets.errors import CellError

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}


def cell(name: str) -> Cell:
    """A cell by its name, or ``package.module:cell``."""
    try:
        with redirect_stdout(sys.stderr):  # what its module prints is no output of the command
            return get_cell(name)
    except CellError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)
