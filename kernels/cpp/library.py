"""A cell's compiled functions, and how they are called."""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from typing import Any, NamedTuple

import torch

from seqnets.cells import Cell
from seqnets.errors import CellError
from seqnets.kernels.apart import apart
from seqnets.kernels.cpp.compiler import CompilationError, compiled
from seqnets.kernels.cpp.threads import runtime
from seqnets.kernels.generation.cpp_printer import print_cell
from seqnets.kernels.generation.saving import Split, split
from seqnets.kernels.generation.tracing import trace

log = logging.getLogger(__name__)

# How values are stored, and computed with
TYPES = {
    torch.float32: ("float", "float"),
    torch.float64: ("double", "double"),
    torch.bfloat16: ("bfloat16", "float"),
}


class Saved(NamedTuple):
    """What a step saves for its gradient."""

    per_unit: int  # values
    per_row: int


class Library(NamedTuple):
    call: ctypes.CDLL  # forward and backward, of the files of those names
    saved: Saved
    differs: tuple[bool, ...]  # for each gate, whether the gradients of x and of r do
    numbers: dict[str, float]  # that the step read from outside
    key: str  # of what it was compiled from, by and for


def source(cell: Cell, dtype: torch.dtype = torch.float32) -> str:
    """The C++ of the cell, as it computes now.

    Raises:
        CellError: it cannot be generated; see `trace`.
    """
    return _source(cell, split_of(cell), dtype)


def _source(cell: Cell, parts: Split, dtype: torch.dtype) -> str:
    stored, real = TYPES[dtype]
    return f"""using real = {real};
#define STORED_BFLOAT16 {int(dtype is torch.bfloat16)}
#include "vector.hpp"
using stored = {stored};

{print_cell(cell, parts)}
#include "recurrence.hpp"
"""


@cache
def split_of(cell: Cell) -> Split:
    return split(apart(trace, cell))


def saved_by(cell: Cell) -> Saved:
    saved = split_of(cell).forward.outputs["saved"]
    return Saved(sum(node.columns for node in saved), sum(not node.columns for node in saved))


def library(cell: Cell, dtype: torch.dtype) -> Library | str:
    """The cell's functions for a dtype, compiled on first use; or why there are none, as a clause."""
    found = _library(cell, dtype)
    outdated = None if isinstance(found, str) else cell.why_outdated(found.numbers)
    return outdated or found


@cache
def _library(cell: Cell, dtype: torch.dtype) -> Library | str:
    return apart(_make, cell, dtype)


def _make(cell: Cell, dtype: torch.dtype) -> Library | str:
    numbers = cell.numbers_from_outside()
    try:
        parts = split_of(cell)
        name = cell.name if cell.name.isascii() and cell.name.isidentifier() else "cell"
        functions, key = compiled(name, _source(cell, parts, dtype))
    except (CellError, CompilationError) as error:
        return str(error)
    if threads := runtime():
        functions.set_threads(*threads)
    d_x, d_r = (parts.backward.outputs[group] for group in ("d_x", "d_r"))
    differs = tuple(mine is not theirs for mine, theirs in zip(d_x, d_r, strict=True))
    return Library(functions, saved_by(cell), differs, numbers, key)


def arguments(numbers: list[int]) -> Any:
    """As `Arguments` in problem.hpp reads them."""
    return (ctypes.c_int64 * len(numbers))(*numbers)
