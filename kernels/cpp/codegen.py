"""Prints a step and its gradient as C++: a struct ``Cell``, whose functions compute a vector of units of one row.

Where a value depends on its whole row, a function has several stages. Each stage computes the sums that later stages
read, and keeps values that later stages would otherwise compute again.
"""

from __future__ import annotations

from functools import cache

from seqnets.cells import Cell
from seqnets.kernels.ir.expressions import INFIX, Writer
from seqnets.kernels.ir.graph import COMPARISONS, REDUCTIONS, Graph, Node
from seqnets.kernels.ir.partition import Split

CALLS = {"where": "select", "pow": "power"}  # other operations have the same name in C++
# The C++ names of the groups of inputs and outputs
NAMES = {"state": "old", "new": "now", "d_state": "incoming"}
RESULTS = {"state": "now", "d_state": "d_old"}
ARGUMENTS = {
    "forward": """const Each<V, G>& x, const Each<V, G>& r, const Each<V, S>& old, const Each<V, P>& params,
        const Each<V, MASKS>& masks, Each<V, KEPT>& kept, const Each<V, SUMS>& sums, V hidden, Each<V, SUMS>& terms,
        Each<V, S>& now, Each<V, SAVED>& saved, Each<V, COLUMNS>& columns""",
    "backward": """const Each<V, SAVED>& saved, const Each<V, COLUMNS>& columns, const Each<V, S>& now, const Each<V, S>& old,
        const Each<V, P>& params, const Each<V, MASKS>& masks, const Each<V, S>& incoming, Each<V, KEPT_BACK>& kept,
        const Each<V, SUMS_BACK>& sums, V hidden, Each<V, SUMS_BACK>& terms, Each<V, G>& d_x, Each<V, G>& d_r, Each<V, S>& d_old,
        Each<V, P>& d_params""",  # noqa: E501
}
KEYWORDS = """alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class compl
concept const consteval constexpr constinit const_cast continue co_await co_return co_yield decltype default delete do double
dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable namespace new noexcept not
not_eq nullptr operator or or_eq private protected public register reinterpret_cast requires return short signed sizeof static
static_assert static_cast struct switch template this thread_local throw true try typedef typeid typename union unsigned using
virtual void volatile wchar_t while xor xor_eq"""  # noqa: E501
OURS = """V M L G S P MASKS KEPT KEPT_BACK SUMS SUMS_BACK SAVED COLUMNS x r old now params masks kept sums hidden terms saved columns
incoming d_x d_r d_old d_params stage real whole splat select power sigmoid tanh exp exp2 log log1p expm1 erf sin cos floor sqrt
rsqrt abs sign maximum minimum t"""  # noqa: E501


def print_cell(cell: Cell, split: Split) -> str:
    """Return the source of the struct ``Cell``, which `recurrence.hpp` uses."""
    forward, backward = _Passes(split.forward, "forward"), _Passes(split.backward, "backward")
    saved = split.forward.outputs["saved"]
    d_x, d_r = (split.backward.outputs[group] for group in ("d_x", "d_r"))
    differs = [mine is not theirs for mine, theirs in zip(d_x, d_r, strict=True)]
    constants = {
        "G": cell.gates, "S": len(cell.states), "P": len(cell.params), "MASKS": len(cell.masks),
        "SAVED": sum(n.columns for n in saved), "COLUMNS": sum(not n.columns for n in saved), "DIFFERENT": sum(differs),
        "STAGES": forward.stages, "KEPT": len(forward.kept), "SUMS": len(forward.reductions),
        "STAGES_BACK": backward.stages, "KEPT_BACK": len(backward.kept), "SUMS_BACK": len(backward.reductions),
    }  # fmt: skip
    lines = [
        f"// Generated from the cell {cell.name!r} of the module {cell.__module__!r}: its step, "
        "and the gradient of it.",
        "struct Cell {",
        f"    static constexpr int {', '.join(f'{name} = {value}' for name, value in constants.items())};",
        "    static constexpr bool differs(int gate) "
        f"{{ return {_chosen([str(d).lower() for d in differs], 'gate')}; }}",
        *forward.source(),
        *backward.source(),
        "};",
    ]
    return "\n".join(lines) + "\n"


def _chosen(values: list[str], index: str) -> str:
    """Return a C++ expression for ``values[index]``."""
    if len(set(values)) <= 1:
        return values[0] if values else "0"
    return f"{index} == 0 ? {values[0]} : " + _chosen_after(values, index, 1)


def _chosen_after(values: list[str], index: str, first: int) -> str:
    if first == len(values) - 1:
        return values[first]
    return f"{index} == {first} ? {values[first]} : {_chosen_after(values, index, first + 1)}"


class _Passes:
    """Holds a graph that is cut into the stages of a function."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name
        self.nodes = graph.order()
        self.suffix = "_back" if name == "backward" else ""
        self.reductions = [node for node in self.nodes if node.op in REDUCTIONS]
        self.results = [node for group in graph.outputs.values() for node in group]
        self.depth = cache(self._depth)
        self.stages = 1 + max(map(self.depth, self.results), default=0)
        self.kept: list[Node] = []
        self.needs: list[dict[Node, None]] = [{} for _ in range(self.stages)]
        for stage in reversed(range(self.stages)):
            for root in self._roots(stage):
                self._need(root, stage)

    def _depth(self, node: Node) -> int:
        """Return the first stage in which a value can be computed."""
        below = max(map(self.depth, node.args), default=0)
        return below + (node.op in REDUCTIONS)

    def _roots(self, stage: int) -> list[Node]:
        if stage == self.stages - 1:
            return self.results
        summed = [node.args[0] for node in self.reductions if self.depth(node) == stage + 1]
        return summed + [node for node in self.kept if self.depth(node) == stage]

    def _need(self, node: Node, stage: int) -> None:
        if node in self.needs[stage]:
            return
        if self._is_kept_before(node, stage):
            if node not in self.kept:
                self.kept.append(node)
        elif node.op not in REDUCTIONS:
            for arg in node.args:
                self._need(arg, stage)
        self.needs[stage][node] = None

    def _is_kept_before(self, node: Node, stage: int) -> bool:
        """Return True if an earlier stage computes the value and keeps it for this stage.

        That holds for values per unit. Values per row, or of the parameters alone, are computed again.
        """
        per_unit = node.rows and node.columns and not node.logical and node.op != "input"
        return per_unit and self.depth(node) < stage

    def source(self) -> list[str]:
        kinds = ["largest" if node.op == "row_max" else "total" for node in self.reductions]
        starts = ["-std::numeric_limits<real>::infinity()" if kind == "largest" else "0" for kind in kinds]
        adds = ["maximum(a, b)" if kind == "largest" else "a + b" for kind in kinds]
        stages = [str(self.depth(node) - 1) for node in self.reductions]
        s = self.suffix
        return [
            f"    static constexpr int stage_of{s}(int k) {{ return {_chosen(stages, 'k')}; }}",
            f"    static constexpr real start{s}(int k) {{ return {_chosen(starts, 'k')}; }}",
            f"    INLINE V add{s}(int k, V a, V b) {{ return {_chosen(adds, 'k') if adds else 'a'}; }}",
            f"    INLINE real reduce{s}(int k, V x) "
            f"{{ return {_chosen([f'{kind}(x)' for kind in kinds], 'k') if kinds else '0'}; }}",
            f"    template <int stage> INLINE void {self.name}({ARGUMENTS[self.name]}) {{",
            *(line for stage in range(self.stages) for line in self._stage(stage)),
            "    }",
        ]

    def _stage(self, stage: int) -> list[str]:
        nodes = [node for node in self.nodes if node in self.needs[stage]]
        writer = _Stage(self.graph, nodes, self._roots(stage), {*KEYWORDS.split(), *OURS.split()})
        for group, members in self.graph.inputs.items():
            places = {"tiles": 0, "columns": 0}
            for node in members:
                kind = "tiles" if node.columns else "columns"
                writer.text[node] = f"{NAMES.get(group, group) if node.columns else 'columns'}[{places[kind]}]"
                places[kind] += 1
        lines = []
        for node in nodes:
            if node.op in REDUCTIONS:
                writer.text[node] = f"sums[{self.reductions.index(node)}]"
            elif self._is_kept_before(node, stage):
                writer.text[node] = f"kept[{self.kept.index(node)}]"
        lines += writer.statements(nodes)
        if stage < self.stages - 1:
            lines += [
                f"terms[{k}] = {writer.vector(node.args[0])}"
                for k, node in enumerate(self.reductions)
                if self.depth(node) == stage + 1
            ]
            lines += [
                f"kept[{k}] = {writer.text[node]}" for k, node in enumerate(self.kept) if self.depth(node) == stage
            ]
        else:
            for group, members in self.graph.outputs.items():
                tiles = [node for node in members if node.columns or group != "saved"]
                lines += [f"{RESULTS.get(group, group)}[{k}] = {writer.vector(node)}" for k, node in enumerate(tiles)]
                columns = [node for node in members if node not in tiles]
                lines += [f"columns[{k}] = {writer.vector(node)}" for k, node in enumerate(columns)]
        return [f"        if constexpr (stage == {stage}) {{", *(f"            {line};" for line in lines), "        }"]


class _Stage(Writer):
    def declaration(self, node: Node) -> str:
        return "const M " if node.logical else "const V "

    def number(self, value: float) -> str:
        if value != value:
            return "std::numeric_limits<real>::quiet_NaN()"
        if value in (float("inf"), float("-inf")):
            return f"{'-' * (value < 0)}std::numeric_limits<real>::infinity()"
        return f"real({value!r})"

    def call(self, node: Node) -> str:
        return f"{CALLS.get(node.op, node.op)}({', '.join(map(self.vector, node.args))})"

    def expression(self, node: Node) -> str:
        if node.op in COMPARISONS:
            left, right = (
                self.vector(arg) if arg.value is not None else self.bracketed(arg, node) for arg in node.args
            )
            return f"{left} {INFIX[node.op]} {right}"
        return super().expression(node)

    def vector(self, node: Node) -> str:
        """Return the value as a vector, for places where a plain number is not allowed."""
        if node.value is not None:
            return "V{}" if node.value == 0 else f"splat({self.text.get(node) or self.number(node.value)})"
        return self.text[node]

    def fresh(self, name: str) -> str:
        return super().fresh(name if name.isascii() else "t")
