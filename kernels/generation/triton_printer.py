"""Prints graphs as the source of a module of Triton functions."""

from __future__ import annotations

import builtins
import keyword
import re
from collections import Counter

from seqnets.cells import Cell
from seqnets.kernels.generation.graph import Graph, Node
from seqnets.kernels.generation.tracing import Graphs

HEADER = '''"""Generated from the cell {name!r} of {module}: its step, and the gradient of it."""

import triton
import triton.language as tl

'''
INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "and": "&", "or": "|",
}  # fmt: skip
PRECEDENCE = {"add": 1, "sub": 1, "mul": 2, "div": 2}  # the rest of INFIX is always bracketed
CALLS = {
    **{name: f"tl.{name}" for name in ("exp", "log", "sqrt", "rsqrt", "abs", "erf", "sin", "cos", "floor", "where")},
    "maximum": "maximum", "minimum": "minimum", "row_sum": "row_sum", "row_max": "row_max", "pow": "power",
    "sigmoid": "sigmoid", "tanh": "tanh", "log1p": "log1p", "expm1": "expm1", "sign": "sign",
}  # fmt: skip
TAKES_COLUMNS = ("row_sum", "row_max")
WIDTH = 100  # of an expression; a longer one is named


def print_module(cell: Cell, graphs: Graphs) -> str:
    """The source of both functions, ``step`` and ``gradient``, with what they import."""
    functions = [_Function(graph, name).source() for graph, name in zip(graphs, ("step", "gradient"), strict=True)]
    used = sorted({f for f in CALLS.values() if "." not in f and any(re.search(rf"\b{f}\(", s) for s in functions)})
    imports = f"from seqnets.kernels.functions import {', '.join(used)}\n" if used else ""
    return HEADER.format(name=cell.name, module=cell.__module__) + imports + "".join("\n\n" + s for s in functions)


class _Function:
    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name
        self.uses = Counter(arg for node in graph.order() for arg in node.args)
        self.uses.update(node for group in graph.outputs.values() for node in group)
        self.taken = {"tl", "triton", "cols", "hidden", *CALLS.values(), *graph.inputs, *dir(builtins), *keyword.kwlist}
        self.text: dict[Node, str] = {}
        self.inlined: set[Node] = set()

    def source(self) -> str:
        arguments = [*self.graph.inputs, "cols", "hidden"]
        lines = ["@triton.jit", f"def {self.name}({', '.join(arguments)}):"]
        for argument, nodes in self.graph.inputs.items():
            used = [node for node in nodes if self.uses[node]]
            for node in used:
                self.text[node] = self._fresh(str(node.literal))
            if len(used) == len(nodes) and nodes:
                lines.append(f"    {', '.join(self.text[n] for n in nodes)}{',' * (len(nodes) == 1)} = {argument}")
            else:
                lines += [f"    {self.text[n]} = {argument}[{nodes.index(n)}]" for n in used]
        named = {node for group in self.graph.outputs.values() for node in group} | set(self.graph.names)
        for node in self.graph.order():
            if node.op in ("input", "constant", "hidden"):
                continue
            expression = self._expression(node)
            if node not in named and self.uses[node] == 1 and len(expression) < WIDTH:
                self.text[node] = expression
                self.inlined.add(node)
            else:
                self.text[node] = self._fresh(self._name(node))
                lines.append(f"    {self.text[node]} = {expression}")
        returned = [self._tuple([self._tile(n) for n in nodes]) for nodes in self.graph.outputs.values()]
        lines.append(f"    return {returned[0] if len(returned) == 1 else ', '.join(returned)}")
        return "\n".join(lines) + "\n"

    def _expression(self, node: Node) -> str:
        args = [self._operand(arg) for arg in node.args]
        if node.op in INFIX:
            left, right = node.args
            return f"{self._bracketed(left, node)} {INFIX[node.op]} {self._bracketed(right, node)}"
        match node.op:
            case "neg":
                return f"-{self._bracketed(node.args[0], node)}"
            case "not":
                return f"~{self._bracketed(node.args[0], node)}"
            case "number":
                return f"tl.where({args[0]}, 1.0, 0.0)"
        if node.op in TAKES_COLUMNS:
            args.append("cols")
        return f"{CALLS[node.op]}({', '.join(args)})"

    def _operand(self, node: Node) -> str:
        if node.op == "hidden":
            return "hidden"
        return _literal(node.value) if node.value is not None else self.text[node]

    def _bracketed(self, arg: Node, parent: Node) -> str:
        operand = self._operand(arg)
        if arg not in self.inlined or arg.op in CALLS or arg.op == "number":
            return f"({operand})" if operand.startswith("-") else operand
        inner, outer = PRECEDENCE.get(arg.op), PRECEDENCE.get(parent.op)
        first = arg is parent.args[0] and arg is not parent.args[-1]
        plain = inner and outer and (inner > outer or (inner == outer and first))
        return operand if plain else f"({operand})"

    def _name(self, node: Node) -> str:
        if node in self.graph.names:
            return self.graph.names[node]
        for group, nodes in self.graph.outputs.items():
            if node in nodes and group != "state":
                like = self.graph.inputs[{"d_prev": "state"}.get(group, group.removeprefix("d_"))][nodes.index(node)]
                return f"d_{like.literal}"
        return "t"

    def _fresh(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self.taken or candidate == "t":
            candidate, number = f"{name}{number}" if name == "t" else f"{name}_{number}", number + 1
        self.taken.add(candidate)
        return candidate

    def _tile(self, node: Node) -> str:
        """The operand, broadcast to a whole tile."""
        operand = self._operand(node)
        return operand if node.rows and node.columns else f"tl.zeros_like(x[0]) + {operand}"

    @staticmethod
    def _tuple(items: list[str]) -> str:
        return f"({', '.join(items)}{',' * (len(items) == 1)})"


def _literal(value: float) -> str:
    text = repr(value)
    return text if text[-1].isdigit() else f'float("{text}")'
