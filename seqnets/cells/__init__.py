"""Defines the recurrent cells, each written once. A new cell is a file here and a line in `CELLS`."""

import importlib
from difflib import get_close_matches

from seqnets.cells.cell import Cell, cell
from seqnets.cells.gru import gru
from seqnets.cells.lstm import lstm
from seqnets.cells.rnn import rnn_relu, rnn_tanh
from seqnets.errors import CellError

CELLS: dict[str, Cell] = {c.name: c for c in (rnn_tanh, rnn_relu, lstm, gru)}


def get_cell(name: str | Cell) -> Cell:
    """Return the cell called `name`.

    Args:
        name: a key of `CELLS`, ``"package.module:cell"`` for a cell of your own, or a `Cell`, which is returned as is.

    Raises:
        CellError: If there is no such cell. The message lists the known ones.
    """
    if isinstance(name, Cell):
        return name
    if not isinstance(name, str):
        raise CellError(f"a cell is a name or the result of @seqnets.cell, not {type(name).__name__}")
    if name in CELLS:
        return CELLS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        close = get_close_matches(name, CELLS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise CellError(f"unknown cell {name!r}: {hint}Choose from {', '.join(CELLS)}, or 'package.module:cell'")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise CellError(f"cell {name!r} cannot be imported: {error}") from error
    if not isinstance(found, Cell):
        raise CellError(f"{name!r} is a {type(found).__name__}, not a cell; decorate its step with @seqnets.cell(...)")
    return found


__all__ = ["CELLS", "Cell", "cell", "get_cell", "gru", "lstm", "rnn_relu", "rnn_tanh"]
