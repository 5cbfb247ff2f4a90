"""From a cell's step to its graph, and to the graph of its gradient, by `make_fx` over `torch.func.vjp`.

Sizes are traced as symbols: a number that stood for H would be baked into the kernels. What torch can decompose into the
operations of `HANDLERS` is supported; everything else is refused by name.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch._decomp import global_decomposition_table
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from seqnets.cells import Cell
from seqnets.errors import CellError
from seqnets.kernels.generation.graph import Builder, Graph, Node

SUPPORTED = (
    "+ - * / **, comparisons, logical operators, where, minimum, maximum, clamp, abs, sign, floor, exp, log, log1p, expm1, "
    "sqrt, rsqrt, erf, sin, cos, sigmoid, tanh, relu and its kin, elu, gelu, silu, softplus, what torch decomposes "
    "into these, and sum, mean, var, amax, amin, softmax and layer_norm over the last dimension"
)


class Graphs(NamedTuple):
    """All that kernels are generated from."""

    forward: Graph  # (x, r, state, params, masks) -> state
    backward: (
        Graph  # (x, r, state, params, masks, d_state) -> d_x, d_r, d_prev, d_params; the latter per row of the batch
    )


@cache
def trace(cell: Cell) -> Graphs:
    """The graphs of the cell's step and of its gradient.

    Raises:
        CellError: the step uses an operation that kernels cannot be generated from; the message names it, the line it
            stands in and what is supported.
    """
    return Graphs(_trace(cell, backward=False), _trace(cell, backward=True))


def _trace(cell: Cell, backward: bool) -> Graph:
    groups = _argument_names(cell)
    sizes = {"params": (HIDDEN,)}
    examples = [[torch.full(sizes.get(g, (BATCH, HIDDEN)), 0.5) for _ in names] for g, names in groups.items()]
    named: list[str] = []  # the step's local variables, whose values come back behind the outputs

    def step(x: Any, r: Any, state: Any, params: Any, masks: Any) -> tuple[Any, list[Tensor]]:
        with _locals_of(cell.step) as found:
            new = cell(x, r, state, params, masks)
        values = {name: value for name, value in found.items() if isinstance(value, Tensor)}
        named[:] = values
        return tuple(new), list(values.values())

    def joint(x: Any, r: Any, state: Any, params: Any, masks: Any, *d_state: Tensor) -> Any:
        if not backward:
            return step(x, r, state, params, masks)
        _, vjp, values = torch.func.vjp(lambda *own: step(*own, masks), x, r, state, params, has_aux=True)
        return vjp(d_state), values

    cotangents = [torch.full((BATCH, HIDDEN), 0.5) for _ in cell.states] if backward else []
    traced = make_fx(
        torch.func.functionalize(joint),
        decomposition_table=_decompositions(),
        tracing_mode="symbolic",
        _allow_non_fake_inputs=True,
    )
    try:
        module = traced(*examples, *cotangents)
        return _Conversion(cell, groups, backward, module).graph(named)
    except _Unsupported as unsupported:
        where = _line_of(cell, unsupported.operation)
        raise CellError(
            f"kernels cannot be generated from the cell {cell.name!r}: its step{where} uses {unsupported}. Supported are {SUPPORTED}"
        ) from None
    except CellError:
        raise
    except Exception as error:
        advice = next(filter(None, map(_advice, _lines(cell))), "")
        raise CellError(
            f"kernels cannot be generated from the cell {cell.name!r}: tracing its {'gradient' if backward else 'step'} "
            f"raised {type(error).__name__}: {str(error).splitlines()[0]}{_own_line(cell, error)}{advice}"
        ) from error


# Sizes of the example tensors; symbols while tracing, and different, so that B and H cannot be confused
BATCH, HIDDEN = 11, 13


def _argument_names(cell: Cell) -> dict[str, list[str]]:
    gates = cell.gate_names or tuple(str(k) for k in range(cell.gates))
    return {
        "x": [f"x_{gate}" for gate in gates],
        "r": [f"r_{gate}" for gate in gates],
        "state": [f"{name}_prev" for name in cell.states],
        "params": list(cell.params),
        "masks": list(cell.masks),
    }


class _Unsupported(Exception):
    def __init__(self, what: str, operation: str = "") -> None:
        super().__init__(what)
        self.operation = operation


class _Conversion:
    """One traced module on its way to a graph."""

    def __init__(self, cell: Cell, groups: dict[str, list[str]], backward: bool, module: fx.GraphModule) -> None:
        self.cell, self.backward, self.module = cell, backward, module
        self.builder = Builder()
        self.inputs = {
            group: tuple(self.builder.input(name, rows=group != "params") for name in names)
            for group, names in groups.items()
        }
        if backward:
            self.inputs["d_state"] = tuple(self.builder.input(f"d_{name}") for name in cell.states)
        self.values: dict[fx.Node, Any] = {}
        self.batch: Any = None  # the symbols of B and H
        self.hidden: Any = None

    def graph(self, named: Sequence[str]) -> Graph:
        inputs = iter([node for group in self.inputs.values() for node in group])
        outputs: Any = None
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                if self.batch is None:
                    self.batch, self.hidden = node.meta["val"].shape
                self.values[node] = next(inputs)
            elif node.op == "get_attr":
                constant = getattr(self.module, node.target)
                if constant.numel() != 1:
                    raise _Unsupported(f"a tensor of its own, of shape {tuple(constant.shape)}; make it one of params=")
                self.values[node] = self.builder.constant(constant.item())
            elif node.op == "call_function":
                if node.users or _name(node.target) == "copy_":
                    self.values[node] = self._call(node)
            elif node.op == "output":
                outputs = torch.utils._pytree.tree_leaves(node.args)
        results = [self._number(self.values[node]) for node in outputs]
        count = len(results) - len(named)
        names = {v: name for v, name in zip(results[count:], named, strict=True) if v.op not in ("input", "constant")}
        split = iter(results[:count])
        wanted = {"state": self.cell.states}
        if self.backward:
            wanted = {f"d_{g}" if g != "state" else "d_prev": self.inputs[g] for g in ("x", "r", "state", "params")}
        return Graph(
            f"{self.cell.name}_{'backward' if self.backward else 'forward'}",
            self.inputs,
            {group: tuple(next(split) for _ in members) for group, members in wanted.items()},
            names,
        )

    def _number(self, value: Any) -> Node:
        return value if isinstance(value, Node) else self.builder.constant(value)

    def _call(self, node: fx.Node) -> Any:
        name = _name(node.target)
        if name == "sym_size":
            return self._size(node.meta["val"])
        handler = HANDLERS.get(name)
        if handler is None:
            raise _Unsupported(f"the operation {name!r}" + _advice(name), name)
        shape = getattr(node.meta.get("val"), "shape", ())
        if any(not (self._is(size, self.batch) or self._is(size, self.hidden) or size == 1) for size in shape) or (
            len(shape) == 2 and (self._is(shape[0], self.hidden) or self._is(shape[1], self.batch))
        ):
            raise _Unsupported(f"{name!r} with a result of another shape than (B, H), (H,) or (B, 1)", name)
        if len(shape) > 2 and any(size != 1 for size in shape[:-2]):
            raise _Unsupported(f"{name!r} with a result of more than two dimensions", name)
        args = torch.fx.map_arg(node.args, lambda arg: self.values[arg])
        kwargs = torch.fx.map_arg(node.kwargs, lambda arg: self.values[arg])
        return handler(_Call(self, node, name), *args, **kwargs)

    def _size(self, size: Any) -> Any:
        if self._is(size, self.hidden):
            return self.builder.hidden()
        return BATCH_SIZE if self._is(size, self.batch) else size

    @staticmethod
    def _is(size: Any, symbol: Any) -> bool:
        return isinstance(size, torch.SymInt) and size.node.expr == symbol.node.expr


BATCH_SIZE = object()  # allowed where a shape is meant, in no arithmetic


class _Call(NamedTuple):
    """One operation of the traced module, for its handler."""

    conversion: _Conversion
    node: fx.Node
    name: str

    def make(self, op: str, *args: Any) -> Node:
        if any(arg is BATCH_SIZE for arg in args):
            raise _Unsupported("the batch size as a number", self.name)
        return self.conversion.builder.node(op, *args)

    def reduced(self, dim: Any) -> bool:
        """Whether a reduction over `dim` goes over H; over the batch it may go only in the gradient.

        There it comes from broadcasting alone, and all that follows is linear in it: the sum is left to whoever adds up
        the gradients of all rows.
        """
        a = self.node.args[0]
        assert isinstance(a, fx.Node)
        shape = a.meta["val"].shape
        dims = range(len(shape)) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
        over = [shape[d] for d in dims]
        if not self.conversion.backward and any(self.conversion._is(size, self.conversion.batch) for size in over):
            raise _Unsupported(f"{self.name!r} over the batch: a step sees each row alone", self.name)
        return any(self.conversion._is(size, self.conversion.hidden) for size in over)


def _op(op: str) -> Callable[..., Node]:
    return lambda call, *args: call.make(op, *args)


def _scaled(op: str) -> Callable[..., Node]:
    """add and sub, with torch's alpha."""

    def handler(call: _Call, a: Any, b: Any, *, alpha: Any = 1, **_: Any) -> Node:
        return call.make(op, a, call.make("mul", b, alpha))

    return handler


def _same(call: _Call, a: Any, *_: Any, **__: Any) -> Any:
    return a


def _sum(call: _Call, a: Node, dim: Any = None, *_: Any, **__: Any) -> Node:
    return call.make("row_sum", a) if call.reduced(dim) else a


def _mean(call: _Call, a: Node, dim: Any = None, *_: Any, **__: Any) -> Node:
    hidden = call.conversion.builder.hidden()
    return call.make("div", call.make("row_sum", a), hidden) if call.reduced(dim) else a


def _var(call: _Call, a: Node, dim: Any = None, correction: Any = 1, *_: Any, **__: Any) -> Node:
    if not call.reduced(dim):
        raise _Unsupported("'var' over another dimension than the last", call.name)
    hidden = call.conversion.builder.hidden()
    centred = call.make("sub", a, call.make("div", call.make("row_sum", a), hidden))
    return call.make(
        "div", call.make("row_sum", call.make("mul", centred, centred)), call.make("sub", hidden, correction)
    )


def _amax(call: _Call, a: Node, dim: Any = None, *_: Any, **__: Any) -> Node:
    return call.make("row_max", a) if call.reduced(dim) else a


def _amin(call: _Call, a: Node, dim: Any = None, *_: Any, **__: Any) -> Node:
    return call.make("neg", call.make("row_max", call.make("neg", a))) if call.reduced(dim) else a


def _clamp(call: _Call, a: Any, low: Any = None, high: Any = None) -> Node:
    a = a if low is None else call.make("maximum", a, low)
    return a if high is None else call.make("minimum", a, high)


def _cast(call: _Call, a: Any, dtype: Any = None, **options: Any) -> Any:
    dtype = options.get("dtype", dtype)
    if dtype in (None, torch.float32):
        return a
    if dtype is torch.bool:
        return a if a.logical else call.make("ne", a, 0)
    raise _Unsupported(
        f"a conversion to {dtype}: kernels compute in float32, or float64 where the layer does", call.name
    )


def _copy_(call: _Call, target: Any, source: Any, *_: Any) -> Any:
    call.conversion.values[call.node.args[0]] = source  # type: ignore[index]
    return source


def _fill(value_at: int) -> Callable[..., Any]:
    def handler(call: _Call, *args: Any, **_: Any) -> Any:
        return call.conversion._number(args[value_at])

    return handler


def _constant(value: float) -> Callable[..., Node]:
    return lambda call, *_, **__: call.conversion.builder.constant(value)


def _logarithm(base: float) -> Callable[..., Node]:
    return lambda call, a: call.make("div", call.make("log", a), call.make("log", base))


HANDLERS: dict[str, Callable[..., Any]] = {
    **{name: _op(name) for name in ["neg", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "abs", "sign", "erf", "sigmoid", "tanh", "sin", "cos", "floor"]},
    **{name: _op(name) for name in ["mul", "pow", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "where"]},
    "div": _op("div"), "truediv": _op("div"), "sgn": _op("sign"),
    "add": _scaled("add"), "sub": _scaled("sub"),
    "rsub": lambda call, a, b, alpha=1: call.make("sub", b, call.make("mul", a, alpha)),
    "reciprocal": lambda call, a: call.make("div", 1, a),
    "square": lambda call, a: call.make("mul", a, a),
    "relu": lambda call, a: call.make("maximum", a, 0),
    "exp2": lambda call, a: call.make("pow", 2, a), "log2": _logarithm(2), "log10": _logarithm(10),
    "logical_and": _op("and"), "bitwise_and": _op("and"), "and_": _op("and"),
    "logical_or": _op("or"), "bitwise_or": _op("or"), "or_": _op("or"),
    "logical_not": _op("not"), "bitwise_not": _op("not"),
    "clamp": _clamp, "clamp_min": _clamp, "clamp_max": lambda call, a, high: _clamp(call, a, None, high),
    "sum": _sum, "mean": _mean, "var": _var, "amax": _amax, "amin": _amin,
    **dict.fromkeys(["expand", "view", "unsqueeze", "squeeze", "reshape", "broadcast_in_dim", "clone", "detach", "alias", "lift_fresh_copy", "sym_float", "view_of", "_unsafe_view"], _same),
    "_to_copy": _cast, "convert_element_type": _cast, "copy": lambda call, _, source, *__: source, "copy_": _copy_,
    "full": _fill(1), "full_like": _fill(1), "scalar_tensor": _fill(0), "fill": _fill(1), "new_full": _fill(2),
    "zeros_like": _constant(0), "new_zeros": _constant(0), "zeros": _constant(0),
    "ones_like": _constant(1), "new_ones": _constant(1), "ones": _constant(1), "empty_like": _constant(0),
}  # fmt: skip


def _name(target: Any) -> str:
    """``aten.add.Tensor`` -> ``add``; ``operator.sub`` -> ``sub``."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[1]
    return str(getattr(target, "__name__", target))


@cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """How to take apart what has no handler."""
    table = global_decomposition_table["post_autograd"]
    return {op: f for op, f in table.items() if isinstance(op, torch._ops.OpOverload) and _name(op) not in HANDLERS}


def _advice(name: str) -> str:
    if any(word in name for word in ("rand", "bernoulli", "dropout", "normal_")):
        return ": random numbers are the layer's to draw; take them as a mask (masks=, seqnets.Mask)"
    if name in ("max", "min", "scatter", "getitem", "value_selecting_reduction_backward"):
        return " (for the largest of each row write .amax(-1, keepdim=True), for the smallest .amin)"
    if name in ("mm", "addmm", "bmm", "matmul", "dot"):
        return ": the only products of matrices are the layer's own"
    return ""


# ---- the author's names and lines


@contextmanager
def _locals_of(step: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """The local variables that the step has when it returns, filled in on leaving."""
    code, found = getattr(step, "__code__", None), {}

    def watch(frame: FrameType, event: str, arg: Any) -> None:
        if event == "return" and frame.f_code is code:
            found.update(frame.f_locals)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(before)


def _lines(cell: Cell) -> dict[str, str]:
    """The operations that the step runs, and where each first stands."""
    code: CodeType | None = getattr(cell.step, "__code__", None)
    lines: dict[str, str] = {}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            for frame, number in traceback.walk_stack(None):
                if frame.f_code is code:
                    lines.setdefault(_name(func), f" ({frame.f_code.co_filename}, line {number})")
            return func(*args, **(kwargs or {}))

    groups = _argument_names(cell)
    tensors = [[torch.full((HIDDEN,) if g == "params" else (BATCH, HIDDEN), 0.5) for _ in n] for g, n in groups.items()]
    with torch.no_grad(), Watch():
        cell(*tensors)
    return lines


def _line_of(cell: Cell, operation: str) -> str:
    """The line of the step that runs `operation`, or what torch decomposes into it; empty if none is found."""
    lines = _lines(cell) if operation else {}
    kin = [name for name in lines if operation.startswith(name)] or [name for name in lines if name not in HANDLERS]
    return lines[kin[0]] if kin else ""


def _own_line(cell: Cell, error: Exception) -> str:
    code = getattr(cell.step, "__code__", None)
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code is code:
            return f" ({code.co_filename}, line {number})"
    return ""
