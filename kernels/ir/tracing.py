"""Traces a cell's step to its graph and to the graph of its gradient, by `make_fx` over `torch.func.vjp`.

Sizes are traced as symbols: a number in place of H would be baked into the kernels. What torch can decompose into the
operations of `lowering.HANDLERS` is supported. Everything else is refused by name.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch._decomp import global_decomposition_table
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta, set_stack_trace
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

from seqnets.cells import Cell
from seqnets.errors import CellError
from seqnets.kernels.ir.graph import Builder, Graph
from seqnets.kernels.ir.lowering import HANDLERS, SUPPORTED, Call, Unsupported, convert, name_of

# Sizes of the example tensors. They are symbols while tracing, and differ so that tracing can tell them apart.
BATCH, HIDDEN = 11, 13


class Graphs(NamedTuple):
    """Holds everything that kernels are generated from."""

    forward: Graph  # (x, r, state, params, masks) -> state
    # (x, r, state, params, masks, d_state) -> d_x, d_r, d_state (before the step), d_params (per row of the batch)
    backward: Graph


def trace(cell: Cell) -> Graphs:
    """Return the graphs of the cell's step and of its gradient.

    Raises:
        CellError: kernels cannot be generated from the step. If it uses an unsupported operation, the message names it,
            its line and what is supported.
    """
    try:
        forward = _trace(cell, torch.float64, backward=False)
        if not forward.computes_as(_trace(cell, torch.float32, backward=False)):
            raise Unsupported(
                "computes with other numbers in float32 than in float64, but kernels are one for all dtypes: "
                "write a number in place of torch.finfo, and give eps= where a function takes one"
            )
        return Graphs(forward, _trace(cell, torch.float64, backward=True))
    except Unsupported as unsupported:
        raise CellError(f"kernels cannot be generated from the cell {cell.name!r}: its step {unsupported}") from None


def _trace(cell: Cell, dtype: torch.dtype, backward: bool) -> Graph:
    names = _argument_names(cell)
    examples = [
        [torch.full((HIDDEN,) if group == "params" else (BATCH, HIDDEN), 0.5, dtype=dtype) for _ in members]
        for group, members in names.items()
    ]
    cotangents = [torch.full((BATCH, HIDDEN), 0.5, dtype=dtype) for _ in cell.states] if backward else []
    author = _Author(cell)

    def step(*arguments: Any) -> tuple[Any, list[Tensor]]:
        with author:
            new = cell(*arguments)
        return tuple(new), list(author.named.values())  # the author's variables are returned after the outputs

    def joint(x: Any, r: Any, state: Any, params: Any, masks: Any, *d_state: Tensor) -> Any:
        if not backward:
            return step(x, r, state, params, masks)
        pulled: Any = torch.func.vjp(lambda *own: step(*own, masks), x, r, state, params, has_aux=True)
        _, vjp, named = pulled
        return vjp(d_state), named

    try:
        module = first = _record(joint, *examples, *cotangents)
        if any(_is_mutable(node.meta.get("original_aten")) for node in module.graph.nodes):
            with_writes = _record(joint, *examples, *cotangents, decompositions={})
            module = _record(torch.func.functionalize(fx.Interpreter(with_writes).run), *examples, *cotangents)
    except CellError:
        raise
    except Exception as error:
        raise Unsupported(author.explain(error)) from error
    _refuse_fixed_sizes(first)
    graph = _Conversion(cell, names, module, dtype, backward).graph(list(author.named))
    _refuse_compared_sizes(first)
    return graph


def _argument_names(cell: Cell) -> dict[str, list[str]]:
    gates = cell.gate_names or tuple(str(k) for k in range(cell.gates))
    return {
        "x": [f"x_{gate}" for gate in gates],
        "r": [f"r_{gate}" for gate in gates],
        "state": [f"{name}_prev" for name in cell.states],
        "params": list(cell.params),
        "masks": list(cell.masks),
    }


def _record(
    function: Callable[..., Any], *arguments: Any, decompositions: dict[Any, Callable[..., Any]] | None = None
) -> fx.GraphModule:
    table = _decompositions() if decompositions is None else decompositions
    with preserve_node_meta():  # so that each node records the author's call that it comes from
        return make_fx(function, table, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*arguments)


@cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Return the decompositions of the operations that have no handler."""
    table = global_decomposition_table["post_autograd"]
    return {op: f for op, f in table.items() if isinstance(op, torch._ops.OpOverload) and name_of(op) not in HANDLERS}


def _is_mutable(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


class _Conversion:
    """Converts a traced module to a graph."""

    def __init__(
        self, cell: Cell, names: dict[str, list[str]], module: fx.GraphModule, dtype: torch.dtype, backward: bool
    ) -> None:
        self.cell, self.module, self.dtype, self.backward = cell, module, dtype, backward
        self.summed: set[fx.Node] | None = set() if backward else None
        self.builder = Builder()
        self.inputs = {
            group: tuple(self.builder.input(name, rows=group != "params") for name in members)
            for group, members in names.items()
        }
        self.output_names = {"state": list(cell.states)}
        if backward:
            self.inputs["d_state"] = tuple(self.builder.input(f"d_{name}") for name in cell.states)
            self.output_names = {
                f"d_{group}": [f"d_{name}" for name in names[group]] for group in ("x", "r", "state", "params")
            }

    def graph(self, named: Sequence[str]) -> Graph:
        """Return the graph, with its values named after the author's variables `named`, the module's last outputs."""
        *nodes, output = self.module.graph.nodes
        returned = tree_leaves(output.args)
        results, variables = returned[: len(returned) - len(named)], returned[len(returned) - len(named) :]
        for state, node in zip(() if self.backward else self.cell.states, results, strict=False):
            if not node.meta["val"].dtype.is_floating_point:
                raise Unsupported(
                    f"returns the state {state!r} as {node.meta['val'].dtype}; give it back as .to(x[0].dtype)"
                )
        values = self._values(nodes, results)
        outputs, names = {}, {values[node]: name for node, name in zip(variables, named, strict=True) if node in values}
        for group, members in self.output_names.items():
            own, results = results[: len(members)], results[len(members) :]
            outputs[group] = tuple(self.builder.number(values[node]) for node in own)
            for node, value, name in zip(own, outputs[group], members, strict=True):
                names.setdefault(value, name)
                if self.summed is not None and value.value != 0 and (node in self.summed) != (group == "d_params"):
                    raise Unsupported(f"has a gradient, {name}, that is not a sum over rows, or that mixes rows")
        direction = "backward" if self.backward else "forward"
        return Graph(f"{self.cell.name}_{direction}", self.inputs, outputs, names)

    def _values(self, nodes: list[fx.Node], results: list[fx.Node]) -> dict[fx.Node, Any]:
        """Return the graph's node, or a `Size`, for each traced node that the results need."""
        placeholders = [node for node in nodes if node.op == "placeholder"]
        values: dict[fx.Node, Any] = dict(
            zip(placeholders, (v for group in self.inputs.values() for v in group), strict=True)
        )
        batch, hidden = placeholders[0].meta["val"].shape
        written = {node: node.all_input_nodes[0] for node in nodes if _is_mutable(node.target)}
        if any(target in values for target in written.values()):
            raise Unsupported("writes into its arguments; write to a copy, or use an operation without underscore")
        needed = set(results)
        for node in reversed(nodes):
            if node in needed or written.get(node) in needed:
                needed.update([node, *node.all_input_nodes])
        for node in nodes:
            if node not in needed or node in values:
                continue
            try:
                if node.op == "get_attr":
                    values[node] = self.builder.constant(_own_number(node, getattr(self.module, str(node.target))))
                else:
                    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
                    call = Call(node, self.builder, batch, hidden, self.dtype, self.summed)
                    values[node] = values[written.get(node, node)] = convert(call, *args, **kwargs)
            except Unsupported as unsupported:
                raise Unsupported(_sentence(node, str(unsupported))) from None
        return values


ADVICE_ON_SIZES = (
    "but kernels serve every size: compute with x.shape[-1] by Python's operators alone, as in x.shape[-1] ** 0.5"
)


def _sizes(module: fx.GraphModule) -> tuple[dict[Any, str], Any]:
    """Return the names of the symbols of B and H, and the guards: what tracing had to assume about them.

    A size that was fixed to a number is that number instead of a symbol.
    """
    batch, hidden = (size.node for size in next(iter(module.graph.nodes)).meta["val"].shape)
    return {batch.expr: "B", hidden.expr: "H"}, batch.shape_env.guards


def _refuse_fixed_sizes(module: fx.GraphModule) -> None:
    symbols, guards = _sizes(module)
    if any(symbol.is_number for symbol in symbols):
        raise Unsupported(f"makes a plain number of a size {guards[0].sloc}, {ADVICE_ON_SIZES}")


def _refuse_compared_sizes(module: fx.GraphModule) -> None:
    symbols, guards = _sizes(module)
    for guard in guards:
        raise Unsupported(f"asks in Python whether {guard.expr.subs(symbols)} {guard.sloc}, {ADVICE_ON_SIZES}")


def _own_number(node: fx.Node, tensor: Tensor) -> float:
    if name_of(node.meta.get("original_aten")) not in ("lift_fresh", "lift_fresh_copy"):
        raise Unsupported(
            "with a tensor that the step neither gets nor makes: "
            "give it as one of params= or masks=, or as a plain number"
        )
    if tensor.numel() != 1:
        raise Unsupported(f"to make a tensor of shape {tuple(tensor.shape)}: give it as one of params=")
    return tensor.item()


# ---- the author's names and lines


class _Author(TorchFunctionMode):
    """Watches a step run: notes its calls into torch on the traced nodes and, at the end, keeps its variables."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        step = getattr(cell.step, "func", cell.step)  # a functools.partial has its function here
        self.code: CodeType | None = getattr(step, "__code__", getattr(type(step).__call__, "__code__", None))
        self.named: dict[str, Tensor] = {}
        self.call = ""  # the call that is running, or that raised

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = (resolve_name(func) or "").removesuffix(".__get__")
        line = next((line for frame, line in traceback.walk_stack(sys._getframe()) if frame.f_code is self.code), 0)
        where = f" ({self.code.co_filename}, line {line})" if self.code and line else ""
        self.call = f"{name}{where}" if name else ""
        set_stack_trace([self.call])
        try:
            result = func(*args, **(kwargs or {}))
        finally:
            set_stack_trace([""])  # no call: an empty list would leave the old one in torch 2.11
        self.call = ""
        return result

    def __enter__(self) -> Any:
        self.before = sys.getprofile()
        sys.setprofile(self._profile)
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        sys.setprofile(self.before)
        super().__exit__(*exception)

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "return" and frame.f_code is self.code:
            self.named = {name: value for name, value in frame.f_locals.items() if isinstance(value, Tensor)}

    def explain(self, error: Exception) -> str:
        """Return the end of a sentence on what the step did that could not be traced."""
        if advice := _advice(self.call):
            return f"uses {self.call}{advice}"
        lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code is self.code]
        at = self.call or (f"line {lines[0]} of {self.code.co_filename}" if self.code and lines else "its gradient")
        message = str(error).partition("\n")[0]
        return f"cannot be traced: {at} raised {type(error).__name__}: {message}"


ADVICE = {
    "__(bool|float|int|index|contains)__|item|tolist|numpy|equal|allclose|is_nonzero": (
        "kernels are made before there are values: choose with torch.where"
    ),
    ".*(rand|normal|dropout|bernoulli|multinomial|uniform|exponential|poisson|rrelu).*": (
        "random numbers are the layer's to draw: take them as a mask (masks=, seqnets.Mask)"
    ),
    "__r?matmul__|matmul|b?mm|addb?mm|mv|dot|linear|bilinear|einsum|outer|t|T|mT|transpose|permute": (
        "products of matrices are the layer's alone"
    ),
    "max|min|sort|topk|kthvalue|arg(max|min|sort)": (
        "for a row's largest or smallest write .amax(-1, keepdim=True) or .amin"
    ),
    "__setitem__|index_put_?|masked_(scatter_?|select)|nonzero": "to choose by value write torch.where",
    "concat|cat|stack|chunk|split|unbind|unflatten": "every gate and state comes as a tensor of its own, (B, H)",
}


def _advice(call: str) -> str:
    method = call.partition(" ")[0].rpartition(".")[2]  # cumsum of ``torch.Tensor.cumsum (cells.py, line 3)``
    return next((f"; {advice}" for pattern, advice in ADVICE.items() if re.fullmatch(pattern, method)), "")


def _sentence(node: fx.Node, reason: str) -> str:
    """Return the end of a sentence on what the step does that kernels cannot do."""
    operation = name_of(node.meta.get("original_aten") or node.target)  # as called, before torch decomposed it
    call = node.stack_trace or f"the operation {operation!r}"
    return f"uses {call} {reason}" if reason else f"uses {call}{_advice(call)}. Supported are {SUPPORTED}"
