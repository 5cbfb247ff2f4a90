"""Writes the nodes of a graph as statements: what C++ and Python, in which Triton is written, have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from seqnets.kernels.ir.graph import Graph, Node

INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">",
    "ge": ">=", "and": "&", "or": "|",
}  # fmt: skip
PREFIX = {"neg": "-", "not": "~"}
PRECEDENCE = {"add": 1, "sub": 1, "mul": 2, "div": 2}  # the rest of INFIX is always bracketed
WIDTH = 100  # of an expression in columns; a longer one is assigned to a name


class Writer:
    """Writes values as source text: those that are used once where they are used, the others under names.

    Names are those that the cell's author chose, where possible.
    """

    def __init__(self, graph: Graph, nodes: Iterable[Node], results: Iterable[Node], taken: Iterable[str]) -> None:
        self.graph = graph
        self.uses = Counter(arg for node in nodes for arg in node.args)
        self.uses.update(results)
        self.taken = set(taken)
        self.text: dict[Node, str] = {}  # how each value is written where it is used
        self.inlined: set[Node] = set()

    def statements(self, nodes: Iterable[Node]) -> list[str]:
        """Return the statements that compute the nodes, which must be ordered: each after those that it needs."""
        lines = []
        for node in nodes:
            if node in self.text:
                continue
            expression = self.expression(node)
            if node.op in ("constant", "hidden") or (
                node not in self.graph.names and self.uses[node] == 1 and len(expression) < WIDTH
            ):
                self.text[node] = expression
                self.inlined.add(node)
            else:
                self.text[node] = self.fresh(self.graph.names.get(node, "t"))
                lines.append(self.declaration(node) + f"{self.text[node]} = {expression}")
        return lines

    def expression(self, node: Node) -> str:
        if node.op == "hidden":
            return "hidden"
        if node.value is not None:
            return self.number(node.value)
        if node.op in PREFIX:
            return PREFIX[node.op] + self.bracketed(node.args[0], node)
        if node.op in INFIX:
            left, right = node.args
            return f"{self.bracketed(left, node)} {INFIX[node.op]} {self.bracketed(right, node)}"
        return self.call(node)

    def declaration(self, node: Node) -> str:
        raise NotImplementedError

    def number(self, value: float) -> str:
        raise NotImplementedError

    def call(self, node: Node) -> str:
        raise NotImplementedError

    def bracketed(self, arg: Node, parent: Node) -> str:
        text = self.text[arg]
        if arg not in self.inlined or arg.op not in INFIX:
            return text
        inner, outer = PRECEDENCE.get(arg.op, 0), PRECEDENCE.get(parent.op, 3)
        first = parent.op in INFIX and arg is not parent.args[1]
        return text if inner > outer or (inner == outer and first) else f"({text})"

    def fresh(self, name: str) -> str:
        """Return the name, or the first of ``name_1``, ``name_2`` that is not taken; ``t1``, ``t2`` for "t"."""
        candidate, number = name, 0
        while candidate in self.taken:
            number += 1
            candidate = f"{name}{'' if name == 't' else '_'}{number}"
        self.taken.add(candidate)
        return candidate
