"""Defines the target-neutral graph of a cell's step, or of its gradient, which is printed as Triton and as C++.

Values are tiles ``(B, H)`` or broadcast to them: a parameter is a row, a mean over H a column. A node is simplified
when it is made, and equal nodes are made only once, so a graph has no common subexpressions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

# Elementwise operations have the names and the meaning that they have in torch
UNARY = {
    "neg", "exp", "exp2", "log", "log1p", "expm1", "sqrt", "rsqrt", "abs", "sign", "erf", "sigmoid", "tanh", "sin",
    "cos", "floor",
}  # fmt: skip
BINARY = {"add", "sub", "mul", "div", "pow", "maximum", "minimum"}
COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
JUMPS = {"sign", "floor"}
CONNECTIVES = {"and", "or", "not"}  # operations on truth values
REDUCTIONS = {"row_sum", "row_max"}  # over H
COMMUTATIVE = {"add", "mul", "maximum", "minimum", "eq", "ne", "and", "or"}


@dataclass(frozen=True, eq=False)
class Node:
    """Represents one value. Nodes of one graph are equal only if they are the same object."""

    op: str  # one of the above, or "where", "input", "constant", "hidden" (H, as a number)
    args: tuple[Node, ...] = ()
    literal: str | float = ""  # an input's name, a constant's value
    rows: bool = False  # whether the value differs between rows of the batch
    columns: bool = False  # whether the value differs between units

    @property
    def logical(self) -> bool:
        return self.op in COMPARISONS or self.op in CONNECTIVES

    @property
    def value(self) -> float | None:
        return float(self.literal) if self.op == "constant" else None


@dataclass(frozen=True)
class Graph:
    """Represents a function of the cell's arguments."""

    name: str
    inputs: Mapping[str, tuple[Node, ...]]  # for each argument, the nodes of the tuple that is passed
    outputs: Mapping[str, tuple[Node, ...]]  # for each result, the nodes of the tuple that is returned
    names: Mapping[Node, str]  # of values: those that the cell's author chose, and those of outputs

    def order(self) -> list[Node]:
        """Return the nodes that the outputs need, each after those that it needs itself."""
        ordered: dict[Node, None] = {}
        stack = [(node, False) for group in self.outputs.values() for node in group][::-1]
        while stack:
            node, ready = stack.pop()
            if ready:
                ordered[node] = None
            elif node not in ordered:
                stack.append((node, True))
                stack.extend((arg, False) for arg in reversed(node.args))
        return list(ordered)

    def computes_as(self, other: Graph) -> bool:
        """Tell whether the other graph computes the same in float32."""
        return self._signature() == other._signature()

    def _signature(self) -> list[tuple[str, ...]]:
        results = [node for group in self.outputs.values() for node in group]
        nodes = [node for node in self.order() if node.value is None]
        return [(node.op, *map(_in_float32, node.args)) for node in nodes] + [tuple(map(_in_float32, results))]

    def reduces_rows(self) -> bool:
        """Tell whether a value depends on its whole row, so that one program must hold all of H."""
        return any(node.op in REDUCTIONS for node in self.order())

    def jumps(self) -> bool:
        """Tell whether a value may change abruptly where an input hardly changes."""
        return any(node.op in COMPARISONS or node.op in JUMPS for node in self.order())


def _in_float32(node: Node) -> str:
    return str(node.literal if node.value is None else torch.tensor(node.value, dtype=torch.float32).item())


class Builder:
    """Builds the nodes of one graph."""

    def __init__(self) -> None:
        self._made: dict[object, Node] = {}

    def input(self, name: str, rows: bool = True, columns: bool = True) -> Node:
        return self._make("input", literal=name, rows=rows, columns=columns)

    def constant(self, value: float) -> Node:
        return self._make("constant", literal=float(value))

    def hidden(self) -> Node:
        return self._make("hidden")

    def copy(self, node: Node, args: Sequence[Node]) -> Node:
        """Return a copy of another graph's node, with the arguments `args`."""
        return self._make(node.op, tuple(args), literal=node.literal, rows=node.rows, columns=node.columns)

    def node(self, op: str, *operands: Node | float) -> Node:
        """Return the node of `op` applied to the operands, simplified."""
        args = list(map(self.lift, operands))
        if op in REDUCTIONS:
            return self._reduce(op, self.number(args[0]))
        if op == "where":
            args = [self.truth(args[0]), *map(self.number, args[1:])]
        else:
            args = list(map(self.truth if op in CONNECTIVES else self.number, args))
        if op in COMMUTATIVE and args[0].value is not None:
            args.reverse()
        return self._fold(op, args) or self._identity(op, *args) or self._elementwise(op, *args)

    def lift(self, operand: Node | float) -> Node:
        return operand if isinstance(operand, Node) else self.constant(operand)

    def number(self, node: Node) -> Node:
        """Convert a truth value to 0 or 1, as torch does in arithmetic; return a number as it is."""
        return self.node("where", node, 1, 0) if node.logical else node

    def truth(self, node: Node) -> Node:
        """Convert a number to whether it is not 0; return a truth value as it is."""
        if node.op == "where" and [arg.value for arg in node.args[1:]] == [1, 0]:
            return node.args[0]
        return node if node.logical else self.node("ne", node, 0)

    def _elementwise(self, op: str, *args: Node) -> Node:
        return self._make(op, args, rows=any(a.rows for a in args), columns=any(a.columns for a in args))

    def _make(self, op: str, args: tuple[Node, ...] = (), **fields: object) -> Node:
        key = (op, frozenset(args) if op in COMMUTATIVE else args, fields.get("literal", ""))
        if key not in self._made:
            self._made[key] = Node(op, args, **fields)  # type: ignore[arg-type]
        return self._made[key]

    def _fold(self, op: str, args: list[Node]) -> Node | None:
        values = [arg.value for arg in args]
        if None in values or op not in UNARY | BINARY | COMPARISONS:
            return None
        return self.constant(getattr(torch, op)(*(torch.tensor(value, dtype=torch.float64) for value in values)).item())

    def _identity(self, op: str, *args: Node) -> Node | None:
        """Return a simpler node of the same value, or None.

        The algebra holds for finite numbers, up to the sign of a zero.
        """
        a, b = args[0], args[-1]
        value = b.value
        match op:
            case "add" | "sub" if value == 0:
                return a
            case "add" if value is not None and value < 0:
                return self.node("sub", a, -value)
            case "sub" if a.value == 0:
                return self.node("neg", b)
            case "mul" | "div" if value == 1:
                return a
            case "mul" if value == -1:
                return self.node("neg", a)
            case "mul" if value == 0:  # a gradient that is zero by construction
                return b
            case "div" if a.value == 0:
                return a
            case "neg" if a.op == "neg":
                return a.args[0]
            case "add" if b.op == "neg":
                return self.node("sub", a, b.args[0])
            case "sub" if b.op == "neg":
                return self.node("add", a, b.args[0])
            case "and" if value is not None:
                return a if value else b
            case "or" if value is not None:
                return b if value else a
            case "not" if value is not None:
                return self.constant(not value)
            case "not" if a.op == "not":
                return a.args[0]
            case "where" if a.value is not None:
                return args[1] if a.value else b
            case "where" if args[1] is b:
                return b
            case "pow" if a.value is not None and a.value > 0:
                return self.node("exp2", self.node("mul", b, math.log2(a.value)))
            case "pow" if value is not None:
                return self._power(a, value)
        return None

    def _power(self, a: Node, exponent: float) -> Node:
        """Return ``a ** exponent``: products and roots for exponents such as 2, -1 or 1.5, logarithms for others."""
        whole, part = divmod(abs(exponent), 1)
        if exponent == -0.5:
            return self.node("rsqrt", a)
        if part not in (0, 0.5) or whole > 16:
            magnitude = self.node(
                "exp", self.node("mul", self.node("log", a if part else self.node("abs", a)), exponent)
            )
            return self.node("mul", magnitude, self.node("sign", a)) if whole % 2 and not part else magnitude
        if exponent < 0:
            return self.node("div", 1, self._power(a, -exponent))
        result = self.node("sqrt", a) if part else self.constant(1)
        square = a
        while whole:
            if whole % 2:
                result = self.node("mul", square, result)
            whole //= 2
            square = self.node("mul", square, square) if whole else square
        return result

    def _reduce(self, op: str, a: Node) -> Node:
        if a.columns:
            return self._make(op, (a,), rows=a.rows)
        return a if op == "row_max" else self.node("mul", a, self.hidden())
