"""What generation refuses and how it says so; what it prints; that Triton compiles it. Numbers: tests/interpreted."""

import functools
import math
import os
import re
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import seqnets
from seqnets.errors import CellError
from seqnets.kernels.ir.graph import Builder
from seqnets.kernels.triton.module import generate
from tests.cells import zoo
from tests.kernels import tile
from tests.kernels.steps import CELLS, TILES, cell_of

SUPPORTED = "Supported are + - * / **"
OTHER, LEARNED = torch.tensor(0.7), torch.nn.Parameter(torch.tensor(0.7))


def by_width(x):
    return x * 2 if x.shape[-1] > 8 else x


def by_value(x):
    if x[0].sum() > 0:
        return x
    return -x


def by_index(x):
    y = x.clone()
    y[x > 0] = torch.zeros((), dtype=x.dtype)  # of a plain number, PyTorch 2.15 makes a masked_fill, which is supported
    return y


class OldStyle(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, d):
        return d


def fails(x):
    if isinstance(x.shape[-1], torch.SymInt):
        raise ValueError("never above 8")
    return x


REFUSED = [
    ("torch.Tensor.T", lambda x: x @ x.T @ x, "products of matrices"),
    ("torch.functional.einsum", lambda x: torch.einsum("bh,bh->b", x, x)[:, None] * x, "products of matrices"),
    ("torch.Tensor.cumsum", lambda x: x.cumsum(-1), SUPPORTED),
    ("torch.Tensor.cumprod", lambda x: x.cumprod(-1), SUPPORTED),
    ("torch.Tensor.flip", lambda x: x.flip(-1), SUPPORTED),
    ("torch.Tensor.roll", lambda x: x.roll(1, -1), SUPPORTED),
    ("torch.Tensor.prod", lambda x: x * x.prod(-1, keepdim=True), SUPPORTED),
    ("torch.lgamma", torch.lgamma, SUPPORTED),
    ("torch.fmod", lambda x: torch.fmod(x, 0.3), SUPPORTED),
    ("torch.fft.fft", lambda x: torch.fft.fft(x).real, SUPPORTED),
    ("torch.arange", lambda x: x * torch.arange(x.shape[-1]), SUPPORTED),
    ("torch.Tensor.sort", lambda x: x.sort(-1).values, "write .amax(-1, keepdim=True)"),
    ("torch.Tensor.topk", lambda x: x.topk(1, -1).values * x, "write .amax(-1, keepdim=True)"),
    ("torch.Tensor.argmax", lambda x: x * x.argmax(-1, keepdim=True), "write .amax(-1, keepdim=True)"),
    ("torch.Tensor.max", lambda x: x * x.max(-1, keepdim=True).values, "write .amax(-1, keepdim=True)"),
    ("torch.Tensor.__floordiv__", lambda x: x // 0.3, "divide, then round"),
    ("torch.cat", lambda x: torch.cat([x, x], -1).chunk(2, -1)[0], "another shape"),
    ("torch.Tensor.unsqueeze", lambda x: (x.unsqueeze(-1) * x.unsqueeze(-2)).sum(-1), "another shape"),
    ("torch.stack", lambda x: torch.stack([x, 2 * x]).amax(0), "comes as a tensor of its own"),
    ("torch.Tensor.chunk", lambda x: x.chunk(1, -1)[0], "comes as a tensor of its own"),
    ("torch.Tensor.__getitem__", lambda x: x * x[:, :1], "a part of the units"),
    ("torch.Tensor.__setitem__", by_index, "torch.where"),
    ("torch.rand_like", lambda x: x * torch.rand_like(x), "masks="),
    ("torch.randn", lambda x: x + torch.randn(x.shape), "masks="),
    ("torch.bernoulli", lambda x: x * torch.bernoulli(x.sigmoid()), "masks="),
    ("torch.nn.functional.dropout", lambda x: F.dropout(x, 0.5), "masks="),
    ("torch.Tensor.mean", lambda x: x - x.mean(0), "over the batch: a step sees each row alone"),
    ("torch.Tensor.sum", lambda x: x * x.sum(), "over the batch"),
    ("torch.Tensor.amax", lambda x: x - x.amax(0), "over the batch"),
    ("torch.Tensor.softmax", lambda x: x.softmax(0), "over the batch"),
    ("torch.nn.functional.batch_norm", lambda x: F.batch_norm(x, None, None, training=True), "over the batch"),
    ("torch.Tensor.mul", lambda x: x * x.numel(), "the batch size"),
    ("torch.Tensor.mul", lambda x: x * (x.shape[-1] // 2), "rounding H"),
    ("torch.Tensor.mul", lambda x: x * OTHER, "params="),
    ("torch.Tensor.mul", lambda x: x * LEARNED, "params="),
    ("torch.tensor", lambda x: x * torch.tensor([0.5, 1.0]).sum(), "params="),
    ("torch.Tensor.half", lambda x: x.half().to(x.dtype), "kernels compute in float32"),
    ("torch.Tensor.double", lambda x: x.double().float(), "kernels compute in float32"),
    ("torch.Tensor.byte", lambda x: x * (x > 0).byte(), "kernels compute in float32"),
    ("torch.Tensor.long", lambda x: x.long() * x, "round with floor"),
    ("torch.Tensor.__and__", lambda x: ((x > 0).sum(-1, keepdim=True) & 1) * x, "of integers"),
    ("torch.Tensor.__bool__", by_value, "torch.where"),
    ("torch.Tensor.item", lambda x: x * torch.ones(()).item(), "torch.where"),
    ("torch.Tensor.__float__", lambda x: x * float(x[0, 0]), "torch.where"),
    ("torch.Tensor.numpy", lambda x: x * float(x.detach().numpy()[0, 0]), "torch.where"),
]


@pytest.mark.parametrize(
    ("call", "function", "advice"), REFUSED, ids=[f"{k}-{row[0]}" for k, row in enumerate(REFUSED)]
)
def test_what_cannot_be_generated_is_named_with_its_line_and_the_way_out(call, function, advice):
    cell = cell_of(function)
    with pytest.raises(CellError) as error:
        generate(cell)
    where = f"({cell.step.__code__.co_filename}, line {cell.step.__code__.co_firstlineno})"
    assert f"cell '<lambda>': its step uses {call} {where}" in str(error.value)
    assert advice in str(error.value)


REFUSED_WHOLE = {
    "a branch on the width": (by_width, r"asks in Python whether H > 8 \(\S*test_generation.py:\d+ in by_width\)"),
    "a comparison with the batch": (lambda x: x * 2 if len(x) > 8 else x, "makes a plain number of a size"),
    "a loop over the width": (lambda x: sum(x for _ in range(x.shape[-1])), "makes a plain number of a size"),
    "a function of math": (lambda x: x * math.sqrt(x.shape[-1]), r"as in x.shape\[-1\] \*\* 0.5"),
    "the width as a float": (lambda x: x * float(x.shape[-1]), "makes a plain number of a size"),
    "the precision of the dtype": (lambda x: x + torch.finfo(x.dtype).eps, "other numbers in float32 than in float64"),
    "an epsilon left to torch": (lambda x: F.rms_norm(x, x.shape[-1:]), "give eps="),
    "a write to an argument": (lambda x: x.mul_(2), "writes into its arguments"),
    "a write to a slice of an argument": (lambda x: x.mul(2).add_(x.exp_()), "writes into its arguments"),
    "a truth as a state": (lambda x: x > 0, "returns the state 'h' as torch.bool"),
    "a whole number as a state": (lambda x: (x > 0).long(), "returns the state 'h' as torch.int64"),
    "a gradient that functions cannot see": (
        lambda x: OldStyle.apply(x), r"line \d+ of .*steps.py raised RuntimeError: .* setup_context"
    ),
    "an error that depends on the values of sizes": (
        lambda x: fails(x), r"line \d+ of .* raised ValueError: never above 8"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED_WHOLE)
def test_what_would_hold_for_the_traced_example_alone_is_refused(what):
    function, message = REFUSED_WHOLE[what]
    with pytest.raises(CellError, match=message):
        generate(cell_of(function))


def backward_of(function):
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x * 1

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, d):
            return function(d)

    return Own.apply


NOT_BY_ROW = {
    "clips the sum": (True, lambda d: d.clamp(-1, 1), "'clamp' of a sum over the batch, and not linear in it"),
    "squares the sum": (True, lambda d: d * d, "'mul' of a sum over the batch"),
    "adds to the sum": (True, lambda d: d + 1, "'add' of a sum over the batch"),
    "knows no sum": (True, lambda d: torch.ones(d.shape[-1], dtype=d.dtype), "d_a, that is not a sum over rows"),
    "scales by the batch": (False, lambda d: d / d.abs().mean(), "'mean' over the batch"),
    "gives rows of others": (False, lambda d: d.sum(0).expand(d.shape), "d_x_0, .* mixes rows"),
}


@pytest.mark.parametrize("what", NOT_BY_ROW)
def test_a_backward_of_ones_own_that_no_row_can_take_alone(what):
    of_param, function, message = NOT_BY_ROW[what]
    own = backward_of(function)

    @seqnets.cell(gates=1, states=("h",), params=("a",))
    def cell(x, r, state, params):
        return x[0] * own(params.a) if of_param else own(x[0]) * params.a

    with pytest.raises(CellError, match=message):
        generate(cell)


def test_the_line_is_that_of_the_step():
    @seqnets.cell(gates=2, states=("h",))
    def late(x, r, state):
        new = (x[0] + r[0]).sigmoid()
        new = new + x[1].sum(-1, keepdim=True)
        return new - x[1].sum(0)  # not the first sum

    line = late.step.__code__.co_firstlineno + 4
    with pytest.raises(
        CellError, match=rf"uses torch.Tensor.sum \({re.escape(__file__)}, line {line}\) over the batch"
    ):
        generate(late)


def test_steps_that_are_no_plain_functions():
    class Leaky:
        def __init__(self, rate):
            self.rate = rate

        def __call__(self, x, r, state):
            inner = (x[0] + r[0]).tanh()
            return inner + self.rate * state.h

    def leaky(rate, x, r, state):
        inner = (x[0] + r[0]).tanh()
        return inner + rate * state.h

    of = seqnets.cell(gates=1, states=("h",))
    sources = [generate(of(step)).source for step in (Leaky(0.25), functools.partial(leaky, 0.25))]
    assert all("inner = tanh(x_0 + r_0)" in source and "inner + h_prev * 0.25" in source for source in sources)


def test_what_is_printed_reads_like_the_step():
    step, gradient = generate(zoo.ALL["lstm"]).source.split("@triton.jit\n")[1:]
    assert step.rstrip() == textwrap.dedent("""\
        def step(x, r, state, params, masks, cols, hidden):
            x_i, x_f, x_g, x_o = x
            r_i, r_f, r_g, r_o = r
            c_prev = state[1]
            o = sigmoid(x_o + r_o)
            f = sigmoid(x_f + r_f)
            i = sigmoid(x_i + r_i)
            g = tanh(x_g + r_g)
            c = f * c_prev + i * g
            h = o * tanh(c)
            return (h, c)""")
    assert "    d_c_prev = " in gradient
    assert (
        "    return (d_x_i, d_x_f, d_x_g, d_x_o), (d_x_i, d_x_f, d_x_g, d_x_o), (tl.zeros_like(x[0]), d_c_prev), ()"
        in gradient
    )


def test_additive_where_x_and_r_only_meet_as_a_sum():
    assert [generate(zoo.ALL[name]).additive for name in ("lstm", "peephole_lstm", "gru", "two_speeds")] == [
        True, True, False, False,
    ]  # fmt: skip


def test_the_source_is_the_same_in_every_process():
    code = (
        "from tests.kernels.steps import attends, norms; from seqnets.kernels.triton.module import generate; "
        "print(generate(attends).digest, generate(norms).digest)"
    )
    again = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "17"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout.split() == [generate(cell).digest for cell in (CELLS["attends"], CELLS["norms"])]


SIMPLER = {
    "nothing is added": (lambda b, x: b.node("add", x, 0), lambda b, x: x),
    "zeros pass": (lambda b, x: b.node("mul", b.node("sub", 0, 0), x), lambda b, x: b.constant(0)),
    "signs cancel": (lambda b, x: b.node("sub", x, b.node("neg", x)), lambda b, x: b.node("add", x, x)),
    "constants first": (lambda b, x: b.node("mul", 2, x), lambda b, x: b.node("mul", x, 2)),
    "numbers are computed": (lambda b, x: b.node("div", 1, b.node("mul", 2, 2)), lambda b, x: b.constant(0.25)),
    "infinity is computed": (lambda b, x: b.node("log", 0), lambda b, x: b.constant(-math.inf)),
    "truth and back": (lambda b, x: b.truth(b.number(b.node("gt", x, 0))), lambda b, x: b.node("gt", x, 0)),
    "a known truth": (lambda b, x: b.node("where", b.node("not", 0), x, 1), lambda b, x: x),
    "powers are products": (
        lambda b, x: b.node("pow", x, 3), lambda b, x: b.node("mul", b.node("mul", x, x), x),
    ),
    "a sum of one number": (
        lambda b, x: b.node("row_sum", b.constant(3)), lambda b, x: b.node("mul", b.hidden(), 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SIMPLER)
def test_simplified_as_it_is_built(what):
    builder = Builder()
    x = builder.input("x")
    given, simple = SIMPLER[what]
    assert given(builder, x) is simple(builder, x)


COMPOSITES = (
    "power of tensors", "power of negative tensors", "own gradient", "gelu", "mish", "softplus", "expm1", "not and xor",
    "where of scalars", "truth as a float", "layer norm", "softmax", "l3 norm", "width", "sinc", "clamp",
    "only a truth",
)  # fmt: skip
COMPILED = {**zoo.ALL, **CELLS, **{name: cell_of(TILES[name]) for name in COMPOSITES}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", COMPILED)
def test_compiles_in_one_dtype_throughout(name, dtype):
    cell = COMPILED[name]
    generated = generate(cell)
    pointer = {torch.float32: "*fp32", torch.float64: "*fp64"}[dtype]
    counts = (cell.gates, cell.gates, len(cell.states), len(cell.params), len(cell.masks), len(cell.states))
    pointers = [(pointer,) * count for count in (*counts, counts[-1], *counts[:4])]
    constants = {"STEP": generated.step, "GRADIENT": generated.gradient, "BLOCK_B": 4, "BLOCK_H": 8}
    names = tile.step_and_gradient.arg_names
    signature = dict(zip(names, [*pointers, "i32", "i32", *["constexpr"] * 4], strict=True))
    source = ASTSource(tile.step_and_gradient, signature, {(names.index(name),): v for name, v in constants.items()})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
    assert compiled.asm["cubin"]
    other = {torch.float32: "f64", torch.float64: "f32"}[dtype]
    assert other not in re.sub(r"loc\(.*|#loc.*", "", compiled.asm["ttir"])
