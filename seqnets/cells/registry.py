"""Finds cells by their keys, for compiled and exported graphs, which cannot hold a cell itself."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from seqnets.errors import CellError
from seqnets.forking import Lock

if TYPE_CHECKING:
    from seqnets.cells.cell import Cell

_defined: dict[str, Cell] = {}
_registering = Lock()


def register(cell: Cell) -> str:
    """Record a cell under a unique key, and return the key.

    The key is ``module:qualname``. Further definitions of the same name are numbered, ``module:qualname#2`` and so on,
    so that graphs compiled with the first one still find it.
    """
    name = f"{cell.__module__}:{cell.__qualname__}"
    with _registering:
        key, number = name, 1
        while key in _defined:
            number += 1
            key = f"{name}#{number}"
        _defined[key] = cell
    return key


def find_cell(key: str) -> Cell:
    """Return the cell with this `Cell.key`, and import the module that defines it if needed.

    Raises:
        CellError: If there is none. A cell defined inside a function is known only after that function has run.
    """
    way_out = "define it before a graph that was compiled or exported with it runs"
    if key not in _defined:
        try:
            importlib.import_module(key.partition(":")[0])
        except ImportError as error:
            raise CellError(
                f"there is no cell {key!r}, for its module cannot be imported ({error}); {way_out}"
            ) from error
    if key not in _defined:
        raise CellError(f"there is no cell {key!r}; {way_out}")
    return _defined[key]
