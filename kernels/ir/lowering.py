"""Lowers the operations of a traced step to the graph. A new entry in `HANDLERS` supports one more operation."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import fx

from seqnets.kernels.ir.graph import Builder, Node

SUPPORTED = (
    "+ - * / **, comparisons, logical operators, where, minimum, maximum, clamp, abs, sign, floor, ceil, trunc, round, "
    "exp, log, log1p, expm1, sqrt, rsqrt, erf, sin, cos, sigmoid, tanh, relu and its kin, elu, gelu, silu, softplus, "
    "what torch decomposes into these, and sum, mean, var, amax, amin, softmax and layer_norm over the last dimension"
)


class Unsupported(Exception):
    """Raised when kernels cannot have an operation. The message is the rest of a sentence that says why."""


class Size:
    """Stands for the batch size, or for a number computed from sizes: allowed in shapes, but not in arithmetic."""


class Call(NamedTuple):
    """Holds one operation of the traced module, for its handler."""

    node: fx.Node
    builder: Builder
    batch: torch.SymInt  # B of the example tensors
    hidden: torch.SymInt  # H of the example tensors
    dtype: torch.dtype  # of the example tensors
    summed: set[fx.Node] | None  # in a gradient, the sums over the batch so far

    def make(self, op: str, *args: Any) -> Any:
        if not any(isinstance(arg, Size) for arg in args):
            return self.builder.node(op, *args)
        if isinstance(self.result, torch.Tensor):
            raise Unsupported("with a number made from the batch size or by rounding H, which kernels do not know")
        return Size()

    @property
    def result(self) -> Any:
        """Return what tracing saw as the result: a tensor without values, or a size."""
        return self.node.meta.get("val")

    def over_hidden(self, dim: Any) -> bool:
        """Tell whether a reduction over `dim` goes over H.

        Over the batch, only a sum is allowed, and only in the gradient, where it comes from broadcasting. It is not
        computed here, but noted: whoever adds up the gradients of all rows takes the sum. See `_check_linear`.

        Raises:
            Unsupported: another reduction goes over the batch.
        """
        shape = self.node.args[0].meta["val"].shape  # type: ignore[union-attr]
        dims = range(len(shape)) if dim is None or dim == [] or not shape else [dim] if isinstance(dim, int) else dim
        if any(_is(shape[d], self.batch) for d in dims):
            if self.summed is None or name_of(self.node.target) != "sum":
                raise Unsupported("over the batch: a step sees each row alone")
            self.summed.add(self.node)
        return any(_is(shape[d], self.hidden) for d in dims)


def convert(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Return the graph's node, or a `Size`, for one operation of the traced module.

    Raises:
        Unsupported: kernels cannot have the operation.
    """
    name, result = name_of(call.node.target), call.result
    if name == "sym_size" and _is(result, call.hidden):
        return call.builder.hidden()
    if isinstance(result, torch.Tensor) and not _is_tile(result.shape, call):
        own = name == name_of(call.node.meta.get("original_aten"))  # else a decomposition made it
        raise Unsupported("with a result of another shape than (B, H), (H,) or (B, 1)" * own)
    if isinstance(result, torch.Tensor) and result.dtype is torch.bool:
        name = {"add": "logical_or", "mul": "logical_and"}.get(name, name)
    handler = HANDLERS.get(name)
    if handler is not None and isinstance(result, torch.Tensor):
        _check_dtype(call, result)
        value = call.builder.lift(handler(call, *args, **kwargs))
        if value.value is None:
            _check_linear(call, args)
        return call.builder.truth(value) if result.dtype is torch.bool else value
    if handler is not None:
        return handler(call, *args, **kwargs)
    if name.startswith("sym_") or not isinstance(call.node.target, torch._ops.OpOverload):  # arithmetic of sizes
        return Size()
    raise Unsupported("")


def _check_linear(call: Call, args: tuple[Any, ...]) -> None:
    """Refuse an operation on a sum over the batch that is not linear in it, because the sum is taken last.

    All that torch derives is linear, but the backward of a user's `torch.autograd.Function` need not be. The result of
    a linear operation counts as a sum over the batch too.

    Raises:
        Unsupported: the operation is not linear.
    """
    sums = [isinstance(arg, fx.Node) and arg in (call.summed or ()) for arg in call.node.args]
    if call.summed is None or not any(sums):
        return
    name = name_of(call.node.target)
    vanish = [part or (isinstance(value, Node) and value.value == 0) for part, value in zip(sums, args, strict=True)]
    if not (
        (name in (*UNCHANGED, "neg", "sum", "mean"))
        or (name in ("add", "sub") and all(vanish))
        or (name == "mul" and sum(sums) == 1)
        or (name == "div" and not sums[1])
        or (name == "where" and not sums[0] and all(vanish[1:]))
    ):
        raise Unsupported("of a sum over the batch, and not linear in it: the gradients of rows are summed last")
    call.summed.add(call.node)


def _check_dtype(call: Call, result: torch.Tensor) -> None:
    """Refuse a result whose values may not be exact in the one dtype that kernels compute in.

    Truth values and small whole numbers are exact in that dtype. Converting floating-point numbers to integers would
    round, so it is refused too.

    Raises:
        Unsupported: the result has such a dtype.
    """
    of = [node.meta["val"] for node in call.node.all_input_nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    if result.dim() and result.dtype not in (torch.float32, call.dtype, torch.bool, torch.int32, torch.int64):
        raise Unsupported(f"in {result.dtype}: kernels compute in float32, or float64 where the layer does")
    if result.dtype in (torch.int32, torch.int64) and any(tensor.is_floating_point() for tensor in of):
        raise Unsupported(f"to convert to {result.dtype}; round with floor, trunc or round")


def _is(size: Any, symbol: torch.SymInt) -> bool:
    return isinstance(size, torch.SymInt) and size.node.expr == symbol.node.expr


def _is_tile(shape: torch.Size, call: Call) -> bool:
    sizes = [
        "B" if _is(size, call.batch) else "H" if _is(size, call.hidden) else size == 1 if isinstance(size, int) else 0
        for size in shape
    ]
    *more, rows, columns = [1, 1, *sizes]
    return (set(more) <= {1} and rows in (1, "B") and columns in (1, "H")) or sizes == ["B"]


def name_of(target: Any) -> str:
    """Return the name of an operation: ``add`` for ``aten.add.Tensor``, ``sub`` for ``operator.sub``."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[1]
    return str(getattr(target, "__name__", target))


def _op(op: str) -> Callable[..., Node]:
    return lambda call, *args: call.make(op, *args)


def _scaled(op: str) -> Callable[..., Node]:
    """Return the handler of ``add`` or ``sub``, with torch's `alpha`."""
    return lambda call, a, b, *, alpha=1: call.make(op, a, call.make("mul", b, alpha))


def _div(call: Call, a: Any, b: Any, rounding_mode: str | None = None) -> Node:
    if rounding_mode is not None:
        raise Unsupported("with rounding; divide, then round with floor or trunc")
    return call.make("div", a, b)


def _bitwise(op: str) -> Callable[..., Node]:
    def handler(call: Call, *args: Any) -> Node:
        if call.result.dtype is not torch.bool:
            raise Unsupported("of integers")
        return call.make(op, *args)

    return handler


def _xor(call: Call, a: Any, b: Any) -> Node:
    if call.result.dtype is not torch.bool:
        raise Unsupported("of integers")
    truths = (call.builder.truth(call.builder.lift(side)) for side in (a, b))
    return call.make("ne", *truths)


def _same(call: Call, a: Any, *_: Any, **__: Any) -> Any:
    return a


def _slice(call: Call, a: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    if start not in (None, 0) or not (end is None or (isinstance(end, int) and end >= sys.maxsize)) or step != 1:
        raise Unsupported("to take a part of the units or rows")
    return a


def _sum(call: Call, a: Node, dim: Any = None, *_: Any, **__: Any) -> Node:
    return call.make("row_sum", a) if call.over_hidden(dim) else a


def _mean(call: Call, a: Node, dim: Any = None, *_: Any, **__: Any) -> Node:
    return call.make("div", call.make("row_sum", a), call.builder.hidden()) if call.over_hidden(dim) else a


def _var(call: Call, a: Node, dim: Any = None, correction: Any = 1, *_: Any, **__: Any) -> Node:
    if not call.over_hidden(dim):
        raise Unsupported("over another dimension than the last")
    hidden = call.builder.hidden()
    centred = call.make("sub", a, call.make("div", call.make("row_sum", a), hidden))
    squares = call.make("row_sum", call.make("mul", centred, centred))
    return call.make("div", squares, call.make("sub", hidden, 1 if correction is None else correction))


def _amax(call: Call, a: Node, dim: Any = None, *_: Any, **__: Any) -> Node:
    return call.make("row_max", a) if call.over_hidden(dim) else a


def _amin(call: Call, a: Node, dim: Any = None, *_: Any, **__: Any) -> Node:
    return call.make("neg", call.make("row_max", call.make("neg", a))) if call.over_hidden(dim) else a


def _clamp(call: Call, a: Any, low: Any = None, high: Any = None) -> Node:
    a = a if low is None else call.make("maximum", a, low)
    return a if high is None else call.make("minimum", a, high)


def _ceil(call: Call, a: Any) -> Node:
    return call.make("neg", call.make("floor", call.make("neg", a)))


def _trunc(call: Call, a: Any) -> Node:
    return call.make("where", call.make("lt", a, 0), _ceil(call, a), call.make("floor", a))


def _round(call: Call, a: Any, decimals: int = 0) -> Node:
    """Round to the nearest whole number, and halves to even."""
    if decimals:
        raise Unsupported("to decimals")
    below = call.make("floor", a)
    rest = call.make("sub", a, below)
    half = call.make("mul", below, 0.5)
    odd = call.make("ne", call.make("floor", half), half)
    up = call.make("or", call.make("gt", rest, 0.5), call.make("and", call.make("eq", rest, 0.5), odd))
    return call.make("add", below, up)


def _fill(value_at: int) -> Callable[..., Any]:
    def handler(call: Call, *args: Any, **_: Any) -> Node:
        value = args[value_at]
        if not isinstance(value, Node) and call.result.dtype is torch.float32:
            value = torch.tensor(float(value), dtype=torch.float32).item()
        return call.builder.lift(value)

    return handler


def _constant(value: float) -> Callable[..., Node]:
    return lambda call, *_, **__: call.builder.constant(value)


def _logarithm(base: float) -> Callable[..., Node]:
    return lambda call, a: call.make("mul", call.make("log", a), 1 / math.log(base))


UNCHANGED = (
    "expand", "view", "unsqueeze", "squeeze", "reshape", "broadcast_in_dim", "clone", "detach", "alias", "lift_fresh",
    "lift_fresh_copy", "sym_float", "view_of", "_unsafe_view", "_to_copy", "convert_element_type",
)  # fmt: skip
HANDLERS: dict[str, Callable[..., Any]] = {
    **{name: _op(name) for name in [
        "neg", "exp", "exp2", "log", "log1p", "expm1", "sqrt", "rsqrt", "abs", "sign", "erf", "sigmoid", "tanh", "sin",
        "cos", "floor", "mul", "pow", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge", "where",
    ]},
    "sgn": _op("sign"), "div": _div, "truediv": _div, "add": _scaled("add"), "sub": _scaled("sub"),
    "rsub": lambda call, a, b, alpha=1: call.make("sub", b, call.make("mul", a, alpha)),
    "reciprocal": lambda call, a: call.make("div", 1, a),
    "square": lambda call, a: call.make("mul", a, a),
    "relu": lambda call, a: call.make("maximum", a, 0),
    "log2": _logarithm(2), "log10": _logarithm(10), "ceil": _ceil, "trunc": _trunc, "round": _round,
    "logical_and": _op("and"), "logical_or": _op("or"), "logical_not": _op("not"), "logical_xor": _xor,
    "bitwise_and": _bitwise("and"), "bitwise_or": _bitwise("or"), "bitwise_not": _bitwise("not"),
    "bitwise_xor": _xor,
    "clamp": _clamp, "clamp_min": _clamp, "clamp_max": lambda call, a, high: _clamp(call, a, None, high),
    "sum": _sum, "mean": _mean, "var": _var, "amax": _amax, "amin": _amin,
    **dict.fromkeys(UNCHANGED, _same),
    "slice": _slice, "slice_scatter": lambda call, _, source, *window: _slice(call, source, *window),
    "slice_backward": lambda call, a, _, *window: _slice(call, a, *window),
    **dict.fromkeys(["copy", "copy_"], lambda call, _, source, *__: source),
    "full": _fill(1), "full_like": _fill(1), "scalar_tensor": _fill(0), "fill": _fill(1), "new_full": _fill(2),
    **dict.fromkeys(["zeros_like", "new_zeros", "zeros", "empty_like", "new_empty", "empty"], _constant(0)),
    **dict.fromkeys(["ones_like", "new_ones", "ones"], _constant(1)),
}  # fmt: skip
