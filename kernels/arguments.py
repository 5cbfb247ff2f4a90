"""Defines the argument types and checks that the commands share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

import torch

from seqnets.cells import Cell, get_cell
from seqnets.errors import CellError
from seqnets.kernels.availability import interpreted, triton_version

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}


def cell(name: str) -> Cell:
    """Return the cell of that name, or the one at ``package.module:cell``.

    Raises:
        argparse.ArgumentTypeError: There is no such cell.
    """
    try:
        with redirect_stdout(sys.stderr):  # what its module prints is not output of the command
            return get_cell(name)
    except CellError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def why_no_cache() -> str | None:
    """Return the reason, as a clause, why Triton's cache folder cannot be written, or None if it can.

    Creates the folder if it does not exist. Triton must be installed.
    """
    from triton import knobs

    folder = Path(knobs.cache.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror
    return reason and f"Triton's cache folder {folder} cannot be used: {reason}; name another in TRITON_CACHE_DIR"


def why_nothing_compiles(hidden_sizes: Iterable[int], heads: int) -> str | None:
    """Return the reason, as a clause, why kernels of these sizes cannot be compiled ahead of time here, or None."""
    if triton_version() is None:
        return "Triton is not installed (pip install triton)"
    if interpreted():
        return "TRITON_INTERPRET=1 is set, and an interpreter compiles nothing; unset it"
    if (why := why_no_cache()) is not None:
        return why
    for hidden in hidden_sizes:
        if hidden % heads:
            return f"--heads {heads} does not divide --hidden {hidden}"
    return None
