"""Returns a cell as C++, together with what callers must know about it.

For the cells of this library the result is kept on disk, because tracing a cell takes about a second.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch

import seqnets.cells
from seqnets.cells import CELLS, Cell
from seqnets.kernels import store
from seqnets.kernels.cpp.build import own_folder
from seqnets.kernels.isolation import isolated
from seqnets.once import once


class Printed(NamedTuple):
    source: str  # the struct `Cell` that codegen.py prints
    saved_per_unit: int  # number of values that a step saves for its gradient, per unit
    saved_per_row: int  # the same, per row
    differs: tuple[bool, ...]  # for each gate, whether the gradients of x and r differ
    jumps: bool  # whether the step or its gradient compares or rounds


@once
def printed(cell: Cell) -> Printed:
    """Return the cell in C++, as its step computes now.

    Raises:
        CellError: The C++ cannot be generated; see `trace`.
    """
    if cell not in CELLS.values() or own_folder() is None:  # it is code, so it is only kept where libraries are
        return isolated(_print, cell)
    key = {**store.environment(torch.device("cpu")), "cell": cell.name, "cells": _source_of_cells()}
    known = store.read("printed", key, lambda value: Printed(**value | {"differs": tuple(value["differs"])}))
    if known is None:
        known = isolated(_print, cell)
        store.write("printed", key, known._asdict())
    return known


def _print(cell: Cell) -> Printed:
    from seqnets.kernels.cpp.codegen import print_cell
    from seqnets.kernels.ir.partition import split
    from seqnets.kernels.ir.tracing import trace

    parts = split(trace(cell))
    saved = parts.forward.outputs["saved"]
    d_x, d_r = (parts.backward.outputs[group] for group in ("d_x", "d_r"))
    return Printed(
        print_cell(cell, parts),
        sum(node.columns for node in saved),
        sum(not node.columns for node in saved),
        tuple(mine is not theirs for mine, theirs in zip(d_x, d_r, strict=True)),
        any(graph.jumps() for graph in parts),
    )


def _source_of_cells() -> str:
    source = hashlib.sha256()
    for path in sorted(Path(seqnets.cells.__file__).parent.glob("*.py")):
        source.update(path.read_bytes())
    return source.hexdigest()
