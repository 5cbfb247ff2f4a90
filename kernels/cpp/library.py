"""Compiles a cell into a library of C functions, for each dtype."""

from __future__ import annotations

import ctypes
import logging
from typing import NamedTuple

import torch

from seqnets.cells import Cell
from seqnets.errors import CellError
from seqnets.kernels.cpp import build
from seqnets.kernels.cpp.build import CompilationError, compiled
from seqnets.kernels.cpp.openmp import runtime
from seqnets.kernels.cpp.printed import Printed, printed
from seqnets.kernels.isolation import isolated
from seqnets.once import once
from seqnets.recurrence import arithmetic_dtype

log = logging.getLogger(__name__)

# C++ types of stored values, and of arithmetic
TYPES = {
    torch.float32: ("float", "float"),
    torch.float64: ("double", "double"),
    torch.bfloat16: ("bfloat16", "float"),
}


class Library(NamedTuple):
    call: ctypes.CDLL  # `forward` and `backward`, of the headers of those names
    printed: Printed
    numbers: dict[str, float]  # the numbers that the step read from outside
    key: str  # hash of the source, the compiler and the CPU
    arithmetic: torch.dtype  # in which kernels compute and carry states


def source(cell: Cell, dtype: torch.dtype = torch.float32) -> str:
    """Return the C++ source of the cell, as its step computes now.

    Raises:
        CellError: The source cannot be generated; see `trace`.
    """
    stored, real = TYPES[dtype]
    return f"""using real = {real};
#define STORED_BFLOAT16 {int(dtype is torch.bfloat16)}
#include "vector.hpp"
using stored = {stored};

{printed(cell).source}
#include "recurrence.hpp"
"""


def library(cell: Cell, dtype: torch.dtype) -> Library | str:
    """Return the cell's functions for a dtype, compiled on first use, or a clause that says why there are none."""
    found = _library(cell, dtype)
    if cell.reads_outside and not isinstance(found, str):
        return cell.why_outdated(found.numbers) or found
    return found


def loaded(cell: Cell, dtype: torch.dtype) -> Library:
    """Return the functions that the forward pass ran, even if numbers that the step reads have changed since then."""
    found = _library(cell, dtype)
    assert isinstance(found, Library)
    return found


@once
def _library(cell: Cell, dtype: torch.dtype) -> Library | str:
    return isolated(_make, cell, dtype)


def _make(cell: Cell, dtype: torch.dtype) -> Library | str:
    numbers = cell.numbers_from_outside()
    try:
        functions, key = compiled(_name(cell), source(cell, dtype))
    except CellError as error:
        return str(error)
    except CompilationError as error:
        log.warning("The cell %r is not compiled: %s.", cell.name, error)
        return str(error)
    if threads := runtime():
        functions.set_threads(*threads)
    return Library(functions, printed(cell), numbers, key, arithmetic_dtype(dtype))


def is_compiled(cell: Cell, dtype: torch.dtype) -> bool:
    """Return True if `library` need not compile: the cell is compiled already, or cannot be."""
    try:
        return build.is_compiled(_name(cell), source(cell, dtype))
    except CellError:
        return True


def _name(cell: Cell) -> str:
    return cell.name if cell.name.isascii() and cell.name.isidentifier() else "cell"
