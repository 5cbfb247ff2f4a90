"""Imports generated source as a module in memory: no file on disk can be stale or come from someone else."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from importlib.abc import ExecutionLoader
from types import ModuleType
from typing import Any, NamedTuple

from seqnets.cells import Cell
from seqnets.kernels.ir.tracing import trace
from seqnets.kernels.isolation import isolated
from seqnets.kernels.triton.codegen import print_module
from seqnets.once import once


class Generated(NamedTuple):
    """Holds a cell's functions in the form that kernels call."""

    source: str
    digest: str  # of the source: identifies what the kernels compute
    step: Any  # the Triton functions: this one and the next
    gradient: Any
    reduces_rows: bool
    additive: bool  # whether the gradients of x and of r are the same, for every gate
    jumps: bool  # whether the step may jump, because it compares or rounds
    numbers: dict[str, float]  # that the step read from its module and from enclosing functions


class _Loader(ExecutionLoader):
    """Gives the source to the import system and, through it, to tracebacks and to `inspect`, where Triton looks."""

    def __init__(self, source: str) -> None:
        self.source = source

    def get_source(self, fullname: str) -> str:
        return self.source

    def get_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".py"


@once
def generate(cell: Cell) -> Generated:
    """Return the cell's functions for Triton kernels.

    Raises:
        CellError: they cannot be generated; see `trace`.
    """
    numbers = cell.numbers_from_outside()
    graphs = isolated(trace, cell)
    source = print_module(cell, graphs)
    digest = hashlib.sha256(source.encode()).hexdigest()
    module = _load(
        f"seqnets.kernels.generated.{cell.name if cell.name.isidentifier() else 'cell'}_{digest[:12]}", source
    )
    outputs = graphs.backward.outputs
    return Generated(
        source,
        digest,
        module.step,
        module.gradient,
        graphs.forward.reduces_rows() or graphs.backward.reduces_rows(),
        additive=outputs["d_x"] == outputs["d_r"],
        jumps=graphs.forward.jumps(),
        numbers=numbers,
    )


def _load(name: str, source: str) -> ModuleType:
    spec = importlib.util.spec_from_loader(name, _Loader(source))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
