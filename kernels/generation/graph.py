"""The target-neutral graph of a cell's step, or of its gradient: what is printed as Triton, and can be as C++.

Values are tiles ``(B, H)`` or broadcast to them: a parameter is a row, a mean over H a column. A node is simplified as it
is made, and made once: a graph holds no common subexpressions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

UNARY: dict[str, Callable[[float], float]] = {
    "neg": lambda a: -a, "exp": math.exp, "log": math.log, "log1p": math.log1p, "expm1": math.expm1, "sqrt": math.sqrt,
    "rsqrt": lambda a: 1 / math.sqrt(a), "abs": abs, "sign": lambda a: float((a > 0) - (a < 0)), "erf": math.erf,
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)), "tanh": math.tanh, "sin": math.sin, "cos": math.cos, "floor": math.floor,
}  # fmt: skip
BINARY: dict[str, Callable[[float, float], float]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b, "maximum": max, "minimum": min,
}  # fmt: skip
LOGICAL = {"eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not"}
REDUCTIONS = {"row_sum", "row_max"}  # over H
COMMUTATIVE = {"add", "mul", "maximum", "minimum", "eq", "ne", "and", "or"}
OPERATIONS = {*UNARY, *BINARY, *LOGICAL, *REDUCTIONS, "where", "number"}


@dataclass(frozen=True, eq=False)
class Node:
    """One value. Nodes of one graph are equal only where they are the same."""

    op: str  # one of OPERATIONS, or "input", "constant", "hidden" (H, as a number)
    args: tuple[Node, ...] = ()
    literal: str | float = ""  # an input's name, a constant's value
    rows: bool = False  # whether it differs from row to row of the batch
    columns: bool = False  # whether it differs from unit to unit

    @property
    def logical(self) -> bool:
        return self.op in LOGICAL

    @property
    def value(self) -> float | None:
        return float(self.literal) if self.op == "constant" else None


@dataclass(frozen=True)
class Graph:
    """A function of the cell's arguments."""

    name: str
    inputs: Mapping[str, tuple[Node, ...]]  # argument -> what the tuple passed for it holds
    outputs: Mapping[str, tuple[Node, ...]]  # what is returned: a tuple for each
    names: Mapping[Node, str]  # as the author of the cell named values

    def order(self) -> list[Node]:
        """The nodes that the outputs need, each after those it needs itself."""
        ordered: dict[Node, None] = {}
        stack = [(node, False) for group in reversed(self.outputs.values()) for node in reversed(group)]
        while stack:
            node, ready = stack.pop()
            if ready:
                ordered[node] = None
            elif node not in ordered:
                stack.append((node, True))
                stack.extend((arg, False) for arg in reversed(node.args))
        return list(ordered)

    def reduces_rows(self) -> bool:
        """Whether a value depends on its whole row, so that one program must hold all of H."""
        return any(node.op in REDUCTIONS for node in self.order())


class Builder:
    """Makes the nodes of one graph."""

    def __init__(self) -> None:
        self._made: dict[object, Node] = {}

    def input(self, name: str, rows: bool = True) -> Node:
        return self._make("input", literal=name, rows=rows, columns=True)

    def constant(self, value: float) -> Node:
        return self._make("constant", literal=float(value))

    def hidden(self) -> Node:
        return self._make("hidden")

    def node(self, op: str, *operands: Node | float) -> Node:
        """`op` of the operands, simplified."""
        args = [arg if isinstance(arg, Node) else self.constant(arg) for arg in operands]
        if op in REDUCTIONS:
            return self._reduce(op, self._number(args[0]))
        if op == "where":
            args[1:] = map(self._number, args[1:])
        elif op not in {"and", "or", "not", "number"}:  # a bool that meets arithmetic counts 0 or 1, as in torch
            args = list(map(self._number, args))
        if op in COMMUTATIVE and args[0].value is not None:
            args.reverse()
        simple = self._fold(op, args) or self._identity(op, *args)
        return simple or self._make(op, args, rows=any(a.rows for a in args), columns=any(a.columns for a in args))

    def _make(self, op: str, args: list[Node] = [], **fields: object) -> Node:  # noqa: B006
        unordered = op in COMMUTATIVE
        key = (op, frozenset(args) if unordered else tuple(args), len(args), fields.get("literal"))
        if key not in self._made:
            self._made[key] = Node(op, tuple(args), **fields)  # type: ignore[arg-type]
        return self._made[key]

    def _number(self, node: Node) -> Node:
        return self._make("number", [node], rows=node.rows, columns=node.columns) if node.logical else node

    def _fold(self, op: str, args: list[Node]) -> Node | None:
        values = [arg.value for arg in args]
        function: Callable[..., float] | None = UNARY.get(op) or BINARY.get(op)
        if function is None or None in values:
            return None
        try:
            return self.constant(function(*values))
        except (ArithmeticError, ValueError):  # such as 1/0: left to the kernel, whose answer is inf or nan
            return None

    def _identity(self, op: str, *args: Node) -> Node | None:
        """A simpler node of the same value, where algebra that holds in floating point knows one."""
        a, b = args[0], args[-1]
        value = b.value
        match op:
            case "add" | "sub" if value == 0:
                return a
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
            case "where" if args[1] is args[2]:
                return b
            case "pow" if value is not None:
                return self._power(a, value)
        return None

    def _power(self, a: Node, exponent: float) -> Node | None:
        """Products and roots for exponents such as 2, -1 or 1.5; anything else is left to the general power."""
        if exponent == 0:
            return self.constant(1)
        if exponent < 0:
            return self.node("div", 1, self.node("pow", a, -exponent))
        whole, half = divmod(exponent, 1)
        if half not in (0, 0.5) or exponent > 16:
            return None
        result = self.node("sqrt", a) if half else None
        square = a
        while whole:
            if whole % 2:
                result = square if result is None else self.node("mul", result, square)
            whole //= 2
            square = self.node("mul", square, square) if whole else square
        return result

    def _reduce(self, op: str, a: Node) -> Node:
        if a.columns:
            return self._make(op, [a], rows=a.rows)
        return a if op == "row_max" else self.node("mul", a, self.hidden())
