"""Prints graphs as the source of a module of Triton functions."""

from __future__ import annotations

import builtins
import keyword
import re

from seqnets.cells import Cell
from seqnets.kernels.ir.expressions import Writer
from seqnets.kernels.ir.graph import Graph, Node
from seqnets.kernels.ir.tracing import Graphs

HEADER = '''"""Generated from the cell {name!r} of the module {module!r}: its step, and the gradient of it.

All are tuples of tiles (B, H), of parameters (1, H), in one dtype. `cols` is true for the columns that exist, and `hidden`
is their number. The gradients of parameters come per row of the batch, to be summed.
"""

import triton
import triton.language as tl
'''  # noqa: E501
CALLS = {
    **{name: f"tl.{name}" for name in [
        "exp", "exp2", "log", "sqrt", "rsqrt", "abs", "erf", "sin", "cos", "floor", "where",
    ]},
    **{name: name for name in [
        "maximum", "minimum", "row_sum", "row_max", "sigmoid", "tanh", "log1p", "expm1", "sign",
    ]},
    "pow": "power",
}  # fmt: skip
TAKE_COLUMNS = ("row_sum", "row_max")
RESERVED = {"t", "one", "cols", "hidden", "tl", "triton", *CALLS.values(), *dir(builtins), *keyword.kwlist}


def print_module(cell: Cell, graphs: Graphs) -> str:
    """Return the source of a module with both functions, ``step`` and ``gradient``, and their imports."""
    functions = [_Function(graph, name).source() for graph, name in zip(graphs, ("step", "gradient"), strict=True)]
    used = sorted(
        f for f in CALLS.values() if "." not in f and any(re.search(rf"(?<!\.)\b{f}\(", s) for s in functions)
    )
    imports = f"\nfrom seqnets.kernels.triton.math import {', '.join(used)}\n" if used else ""
    return HEADER.format(name=cell.name, module=cell.__module__) + imports + "".join("\n\n" + s for s in functions)


class _Function(Writer):
    def __init__(self, graph: Graph, name: str) -> None:
        self.name, self.nodes = name, graph.order()
        results = (node for group in graph.outputs.values() for node in group)
        super().__init__(graph, self.nodes, results, {*RESERVED, *graph.inputs})

    def source(self) -> str:
        lines = ["@triton.jit", f"def {self.name}({', '.join([*self.graph.inputs, 'cols', 'hidden'])}):"]
        lines += [f"    {line}" for line in [*self._unpacking(), *self.statements(self.nodes)]]
        returned = [
            f"({''.join(f'{self._tile(n)}, ' for n in nodes).rstrip(' ' if len(nodes) == 1 else ', ')})"
            for nodes in self.graph.outputs.values()
        ]
        return "\n".join([*lines, f"    return {', '.join(returned)}"]) + "\n"

    def _unpacking(self) -> list[str]:
        lines = []
        for argument, nodes in self.graph.inputs.items():
            used = [node for node in nodes if self.uses[node]]
            for node in used:
                self.text[node] = self.fresh(str(node.literal))
            if used == list(nodes) and len(nodes) > 1:
                lines.append(f"{', '.join(self.text[n] for n in nodes)} = {argument}")
            else:
                lines += [f"{self.text[n]} = {argument}[{nodes.index(n)}]" for n in used]
        if any(node.op == "hidden" for node in self.nodes):
            lines.append("hidden = tl.cast(hidden, x[0].dtype)")
        if any(map(_of_numbers, self.nodes)):
            lines.append("one = tl.cast(1.0, x[0].dtype)")
        return lines

    def declaration(self, node: Node) -> str:
        return ""

    def number(self, value: float) -> str:
        text = repr(value)
        return text if text[-1].isdigit() else f'float("{text}")'

    def call(self, node: Node) -> str:
        args = [self.text[arg] for arg in node.args] + ["cols"] * (node.op in TAKE_COLUMNS)
        if _of_numbers(node):
            args[1] = "one" if args[1] == "1.0" else f"one * {args[1]}"
        return f"{CALLS[node.op]}({', '.join(args)})"

    def _tile(self, node: Node) -> str:
        """Return the expression of a value, broadcast to a whole tile."""
        if node.rows and node.columns:
            return self.text[node]
        return "tl.zeros_like(x[0])" + ("" if node.value == 0 else f" + {self.text[node]}")


def _of_numbers(node: Node) -> bool:
    """Tell whether a node chooses between two numbers.

    Triton would make a float32 tile of such a choice, whatever dtype the cell computes in.
    """
    return node.op == "where" and all(arg.value is not None for arg in node.args[1:])
