"""A cell's compiled functions, and how they are called."""

from __future__ import annotations

import ctypes
import logging
from typing import Any, NamedTuple

import torch

from seqnets.cells import Cell
from seqnets.errors import CellError
from seqnets.kernels.cpp import build
from seqnets.kernels.cpp.build import CompilationError, compiled
from seqnets.kernels.cpp.openmp import runtime
from seqnets.kernels.cpp.printed import Printed, printed
from seqnets.kernels.isolation import apart
from seqnets.once import once

log = logging.getLogger(__name__)

# How values are stored, and computed with
TYPES = {
    torch.float32: ("float", "float"),
    torch.float64: ("double", "double"),
    torch.bfloat16: ("bfloat16", "float"),
}


class Library(NamedTuple):
    call: ctypes.CDLL  # forward and backward, of the files of those names
    printed: Printed
    numbers: dict[str, float]  # that the step read from outside
    key: str  # of what it was compiled from, by and for


def source(cell: Cell, dtype: torch.dtype = torch.float32) -> str:
    """The C++ of the cell, as it computes now.

    Raises:
        CellError: it cannot be generated; see `trace`.
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
    """The cell's functions for a dtype, compiled on first use; or why there are none, as a clause."""
    found = _library(cell, dtype)
    outdated = None if isinstance(found, str) else cell.why_outdated(found.numbers)
    return outdated or found


def loaded(cell: Cell, dtype: torch.dtype) -> Library:
    """Return the functions that a forward pass ran by, whatever numbers the step reads by now."""
    found = _library(cell, dtype)
    assert isinstance(found, Library)
    return found


@once
def _library(cell: Cell, dtype: torch.dtype) -> Library | str:
    return apart(_make, cell, dtype)


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
    return Library(functions, printed(cell), numbers, key)


def is_compiled(cell: Cell, dtype: torch.dtype) -> bool:
    """Whether `library` has nothing to compile: it was, or it cannot be."""
    try:
        return build.is_compiled(_name(cell), source(cell, dtype))
    except CellError:
        return True


def _name(cell: Cell) -> str:
    return cell.name if cell.name.isascii() and cell.name.isidentifier() else "cell"


def arguments(numbers: list[int]) -> Any:
    """As `Arguments` in problem.hpp reads them."""
    return (ctypes.c_int64 * len(numbers))(*numbers)
