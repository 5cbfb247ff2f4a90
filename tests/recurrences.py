"""What interpreted tests and those on a GPU share: cells, cases, and the check of kernels against the reference.

A check runs one problem three times: by the kernels, by the reference in the same dtype, and by the reference in
float64 on the CPU. Outputs and every gradient of the first are judged by `tests.tolerance`: how far from the third, and
is that farther than the second is?
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd import forward_ad

import seqnets
from seqnets.cells import Cell
from seqnets.kernels.triton.planning.select import use_schedule
from tests.cells import zoo
from tests.tolerance import assert_same_bits, assert_within_policy

I = 5


@seqnets.cell(gates=2, states=("h", "trace"), params={"decay": 0.9})
def traced(x, r, state, params):
    """Two states and a parameter vector."""
    trace = params.decay * state.trace + (x[0] + r[0]).tanh()
    return (x[1] + r[1]).sigmoid() * trace, trace


@seqnets.cell(gates=1, states=("h",))
def normed(x, r, state):
    """A row reduction: layer norm without parameters, its variance over the units that exist."""
    a = x[0] + r[0]
    a = a - a.mean(-1, keepdim=True)
    return (a * (a.square().mean(-1, keepdim=True) + 0.1).rsqrt()).tanh()


@seqnets.cell(gates=2, states=("h",), masks=("once", "each"))
def masked(x, r, state, masks):
    """A mask per sequence and one per step."""
    z = (x[0] + r[0]).sigmoid() * masks.each
    return z * state.h + (1 - z) * (x[1] + r[1]).tanh() * masks.once


@seqnets.cell(gates=("a", "c", "u"), states=("h",))
def nbrc(x, r, state):
    """The recurrently neuromodulated bistable cell of Vecoven, Ernst and Drion, PLOS ONE 16(6), 2021,
    arXiv:2006.05252.
    """
    a = 1 + (x.a + r.a).tanh()
    c = (x.c + r.c).sigmoid()
    return c * state.h + (1 - c) * (x.u + a * state.h).tanh()


RNN, RELU, LSTM, GRU, PEEPHOLE = (zoo.ALL[name] for name in ("rnn_tanh", "rnn_relu", "lstm", "gru", "peephole_lstm"))
CELLS = (*zoo.ALL.values(), traced, normed, masked, nbrc)
SCHEDULES = ("resident", "tiled")
HALF, BFLOAT, DOUBLE = torch.float16, torch.bfloat16, torch.float64


# A cell, and another that stands for a mistake in its kernels
@seqnets.cell(gates=1, states=("h",))
def right(x, r, state):
    return (x[0] + r[0]).tanh() + state.h / 2


@seqnets.cell(gates=1, states=("h",))
def wrong(x, r, state):
    return (x[0] + r[0]).tanh() + state.h / 3


@dataclass(frozen=True)
class Mask(seqnets.Mask):
    """Drawn on the CPU in float32: the same seed gives the same mask in every dtype and on every device."""

    def draw(self, steps, batch, hidden_size, like, training):
        return super().draw(steps, batch, hidden_size, torch.empty(0), training).to(like)


MASKS = {"drop": Mask(0.5, per="step"), "keep": Mask(0.5), "once": Mask(0.5), "each": Mask(0.5, per="step")}


@dataclass(frozen=True)
class Case:
    """One problem. It is fixed by these numbers, and the same in every dtype but for rounding to `dtype`."""

    cell: Cell
    T: int = 4
    B: int = 3
    H: int = 7
    schedule: str = "chosen"  # by the capacity rule, for each pass
    dtype: torch.dtype = torch.float32
    lengths: tuple[int, ...] = ()  # none: all rows are full
    saturated: bool = False  # gates at -100 and 100 and beyond
    alone: bool = False  # also with a cotangent on each output alone
    options: dict[str, Any] = field(default_factory=dict)  # of the layer
    backend: str = "triton"

    def __str__(self) -> str:
        words = [self.cell.name, f"B{self.B}", f"T{self.T}", f"H{self.H}", self.schedule]
        words += [str(self.dtype).removeprefix("torch.")] * (self.dtype is not torch.float32)
        words += ["ragged"] * bool(self.lengths) + ["saturated"] * self.saturated + ["alone"] * self.alone
        return "-".join([*words, *(k if v is True else f"{k}={v}" for k, v in self.options.items())])


def in_cpp(cases: Iterable[Case]) -> list[Case]:
    """The same for the C++ kernels, which have one schedule and no float16."""
    found = [dataclasses.replace(case, schedule="chosen", backend="cpp") for case in cases if case.dtype is not HALF]
    return list({str(case): case for case in found}.values())


def by_each_schedule(*cases: Case) -> list[Case]:
    return [dataclasses.replace(case, schedule=schedule) for case in cases for schedule in SCHEDULES]


TWO_WAY = {"bidirectional": True}
EVERY_CELL = by_each_schedule(*(Case(cell, alone=True) for cell in CELLS))
IN_HALF = [  # each cell meets both schedules, each in another dtype
    Case(cell, dtype=dtype, schedule=SCHEDULES[(k + turn) % 2], lengths=(4, 0, 1), options=TWO_WAY)
    for turn, dtype in enumerate((HALF, BFLOAT))
    for k, cell in enumerate(CELLS)
]
IN_DOUBLE = by_each_schedule(*(Case(cell, T=3, H=3, dtype=DOUBLE) for cell in (LSTM, GRU, traced, normed, masked)))
ODD_SHAPES = [
    Case(RNN, T=63, B=1, H=3, schedule="resident"),
    Case(RELU, T=2, H=70, schedule="resident"),
    Case(GRU, T=2, H=100),  # forward resident, backward tiled
    *by_each_schedule(
        Case(GRU, T=1, B=17, H=1),
        Case(GRU, T=3, B=17, H=16),
        Case(GRU, T=2, B=1, H=100, dtype=HALF),
        Case(LSTM, T=1, B=1, H=1),
        Case(LSTM, T=2, B=17, H=70, dtype=BFLOAT, lengths=(2, 1, 0) * 5 + (2, 2)),
        Case(PEEPHOLE, T=2, B=17, H=20),
        Case(traced, T=2, H=100),
        Case(masked, T=2, B=17, H=70, dtype=HALF),
        Case(normed, T=2, B=17, H=100),
        Case(normed, H=1),
    ),
]
SATURATED = by_each_schedule(
    *(Case(cell, saturated=True) for cell in CELLS if cell is not RELU), Case(LSTM, saturated=True, dtype=HALF)
)
RAGGED = by_each_schedule(
    *(Case(cell, T=5, B=4, lengths=(3, 0, 5, 1)) for cell in (RNN, LSTM, traced, masked, normed)),
    Case(GRU, B=4, lengths=(3, 0, 4, 1), options=TWO_WAY | {"num_layers": 2}),
    Case(GRU, lengths=(0, 0, 0), options=TWO_WAY),
    Case(masked, lengths=(4, 2, 0), options=TWO_WAY | {"return_all_states": True}, alone=True),
    Case(LSTM, lengths=(4, 2, 0), options=TWO_WAY | {"recompute": True, "num_heads": 7}),
)
OPTIONS = by_each_schedule(
    *(
        Case(cell, H=6, options=options)
        for options in (
            TWO_WAY,
            {"num_layers": 2},
            {"batch_first": True},
            {"bias": False},
            {"recurrent_bias": False} | TWO_WAY,
            {"learn_state": True},
            {"recompute": True} | TWO_WAY,
            {"return_all_states": True} | TWO_WAY,
            {"num_heads": 2},
            {"num_heads": 3, "recompute": True, "bias": False} | TWO_WAY,
        )
        for cell in (LSTM, GRU, masked, normed)
        if not (cell is normed and "num_heads" in options)  # it reduces over all heads
    ),
    # in float64: in that alone the reference draws what layers of kernels draw
    Case(GRU, dtype=DOUBLE, options={"num_layers": 3, "dropout": 0.5}),
)
REPEATED = by_each_schedule(
    Case(GRU, B=17, lengths=tuple(range(5)) * 3 + (4, 4), options=TWO_WAY), Case(traced, B=17), Case(normed, dtype=HALF)
)
EMPTY = [
    Case(cell, T=T, B=B, options=options)
    for cell in (LSTM, masked)
    for T, B in ((0, 3), (4, 0), (0, 0))
    for options in ({"return_all_states": True}, TWO_WAY | {"num_layers": 2, "recompute": True})
]


def build(case: Case, device: str = "cpu", dtype: torch.dtype | None = None, **options: Any) -> seqnets.Recurrent:
    """The layer, with no parameter left at 0 or 1."""
    torch.manual_seed(0)
    masks = {name: MASKS[name] for name in case.cell.masks}
    layer = seqnets.Recurrent(case.cell, I, case.H, masks=masks, **case.options | options)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
            if case.saturated and name.startswith("weight_ih"):
                parameter.sign_()  # I is odd, so that gates are odd multiples of 100
    return layer.to(case.dtype).to(device, dtype)


def inputs(case: Case, device: str = "cpu", dtype: torch.dtype | None = None) -> tuple[Any, ...]:
    """x, state, lengths. No tensor is contiguous, and x is nan beyond the lengths."""
    torch.manual_seed(1)
    T, B, batch_first = case.T, case.B, case.options.get("batch_first")
    rows = case.options.get("num_layers", 1) * (1 + case.options.get("bidirectional", False))
    x = torch.randn(T, B, I)
    x = 100 * x.sign() if case.saturated else x
    for row, length in enumerate(case.lengths):
        x[length:, row] = float("nan")
    x = x.transpose(0, 1) if batch_first else x.transpose(0, 1).contiguous().transpose(0, 1)
    state = [torch.randn(B, rows, case.H).transpose(0, 1) for _ in case.cell.states]
    lengths = torch.tensor(case.lengths, device=device) if case.lengths else None
    leaves = [t.to(case.dtype).to(device, dtype).requires_grad_() for t in (x, *state)]
    return leaves[0], tuple(leaves[1:]), lengths


def results(case: Case, backend: str, device: str = "cpu", dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """Outputs, and every gradient for random cotangents."""
    layer = build(case, device, dtype, backend=backend)
    x, state, lengths = inputs(case, device, dtype)
    torch.manual_seed(2)  # masks and dropout
    y, final, *every = layer(x, state, lengths)
    outputs = {"y": y, **{f"last {k}": v for k, v in final._asdict().items()}}
    for states in every:
        outputs |= {f"every {k}": v for k, v in states._asdict().items()}
    torch.manual_seed(3)
    cotangents = {name: torch.randn(value.shape).to(case.dtype).to(value) for name, value in outputs.items()}
    leaves = {"x": x, **{f"initial {k}": s for k, s in zip(case.cell.states, state, strict=True)}}
    leaves |= dict(layer.named_parameters())
    found = dict(outputs)
    outputs = {name: output for name, output in outputs.items() if output.requires_grad}  # with T = 0 some are constant
    together = [list(outputs)] if outputs else []  # none within torch.no_grad
    for chosen in [*together, *([name] for name in outputs if case.alone)]:
        gradients = torch.autograd.grad(
            [outputs[name] for name in chosen],
            list(leaves.values()),
            [cotangents[name] for name in chosen],
            retain_graph=True,
            materialize_grads=True,
        )
        of = "" if len(chosen) == len(outputs) else f" of {chosen[0]} alone"
        found |= {f"d {name}{of}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
    return {name: tensor.detach().cpu() for name, tensor in found.items()}


@contextlib.contextmanager
def poisoned_allocations():
    """torch.empty and its like give nan: what the kernels leave unwritten is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def by_kernels(case: Case, device: str = "cpu") -> dict[str, torch.Tensor]:
    chosen = contextlib.nullcontext() if case.schedule == "chosen" else use_schedule(case.schedule)
    with chosen, poisoned_allocations():
        return results(case, case.backend, device)


def check_bits(case: Case, device: str = "cpu") -> None:
    """The same input gives the same bits."""
    assert_same_bits(by_kernels(case, device), by_kernels(case, device))


def check_exact(schedule: str, lengths: tuple[int, ...], options: dict[str, Any], device: str = "cpu") -> None:
    """In small whole numbers sums of products are exact in any order: all gives the bits of the reference."""

    def whole(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randint(-1, 2, tensor.shape).to(tensor)

    layer = seqnets.Recurrent(RELU, 3, 6, device=device, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(whole(parameter))
    x = whole(torch.empty(4, 3, 3, device=device)).requires_grad_()
    given = x, None, torch.tensor(lengths, device=device) if lengths else None
    found = []
    for layer.backend, layer.recompute in (("reference", False), ("triton", False), ("triton", True)):
        torch.manual_seed(0)
        with use_schedule(schedule), poisoned_allocations():
            y, final = layer(*given)
            leaves = {"x": x, **dict(layer.named_parameters())}
            gradients = torch.autograd.grad([y, *final], list(leaves.values()), map(whole, [y, *final]))
            found.append({"y": y, "last h": final.h, **dict(zip(map("d {}".format, leaves), gradients, strict=True))})
    assert all(tensor.any() for tensor in found[0].values())
    for other in found[1:]:
        assert_same_bits(other, found[0])


def check(case: Case, device: str = "cpu", tf32: bool = False) -> None:
    """Outputs and every gradient by the kernels, within the policy."""
    actual, baseline = by_kernels(case, device), results(case, "reference", device)
    # dropout between layers is drawn on the device
    oracle = results(case, "reference", device if case.options.get("dropout") else "cpu", torch.float64)
    for what, truth in oracle.items():
        assert_within_policy(actual[what], baseline[what], truth, what, tf32)


def batched_gradients(layer, x, state, lengths):
    """Gradients that are asked for in a batch: of each output, of outputs and last states, and along a tangent.

    The first two are those of `torch.autograd.functional.jacobian` with ``vectorize=True``, which batches the
    cotangents of one backward pass. The forward pass of the last one ran before forward-mode AD was entered.
    """
    leaves = [x, *state, *layer.parameters()]
    y, final = layer(x, state, lengths)
    rows = torch.eye(y.numel(), dtype=y.dtype).view(-1, *y.shape)
    several = [torch.randn(3, *output.shape, dtype=y.dtype) for output in (y, *final)]
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    found = [
        *torch.autograd.grad(y, leaves, rows, is_grads_batched=True, **options),
        *torch.autograd.grad([y, *final], leaves, several, is_grads_batched=True, **options),
    ]
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(several[0][0], several[0][1])
        found += [forward_ad.unpack_dual(d).tangent for d in torch.autograd.grad(y, [x, layer.weight_hh_l0], dual)]
    return found


def entangled_gradients(layer, form, create_graph):
    """Gradients where an input of the layer depends on another, or is one, or has a hook: each path counts once."""
    source = torch.randn(4, 2, I, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    if form == "a state that depends on the input":
        x, state = source, [source[0, :, :1].tanh().expand(1, 2, layer.hidden_size) for _ in layer.cell.states]
    elif form == "an input that depends on the state":
        state = [source.mean((0, 2)).view(1, 2, 1).expand(1, 2, layer.hidden_size) for _ in layer.cell.states]
        x = source.detach() * state[0][:, :, :1]
    else:
        x, state = source * 1, None
        x.register_hook(lambda gradient: 3 * gradient)
    y = layer(x, state)[0]
    leaves = [source, *layer.parameters()]
    if create_graph:
        return torch.autograd.grad(y.sin().sum(), leaves, create_graph=True, allow_unused=True, materialize_grads=True)
    several = torch.randn(3, *y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))
    return torch.autograd.grad(y, leaves, several, is_grads_batched=True, allow_unused=True, materialize_grads=True)


ENTANGLED = ("a state that depends on the input", "an input that depends on the state", "an input with a hook")


def check_batched_gradients(cell, backend):
    """Those of a backend are those of the reference."""
    case, found = Case(cell, dtype=torch.float64, lengths=(4, 0, 2), options={"bidirectional": True}), []
    for name in (backend, "reference"):
        torch.manual_seed(0)
        layer, given = build(case, backend=name).eval(), inputs(case)
        found.append(batched_gradients(layer, *given))
    torch.testing.assert_close(*found)


def check_entangled_gradients(cell, form, create_graph, backend):
    """Those of a backend are those of the reference."""
    layers = [build(Case(cell, dtype=torch.float64), backend=name) for name in (backend, "reference")]
    torch.testing.assert_close(*(entangled_gradients(layer, form, create_graph) for layer in layers))


def check_gradients_of_states(T, backend):
    """The last states have gradients to be differentiated again, and batched ones, which are those of the reference."""
    layer = build(Case(LSTM, dtype=torch.float64), backend=backend)
    x, state = torch.randn(T, 2, 5, dtype=torch.float64), torch.randn(1, 2, layer.hidden_size, dtype=torch.float64)
    state.requires_grad_()
    final = layer(x, (state, 2 * state))[1]
    (first,) = torch.autograd.grad(final.h.sum() + final.c.sum(), state, create_graph=True)
    several = torch.ones(3, *final.h.shape, dtype=x.dtype)
    (batched,) = torch.autograd.grad(final.h, state, several, is_grads_batched=True)
    with seqnets.use_backend("reference"):
        layer.backend = None
        final = layer(x, (state, 2 * state))[1]
    torch.testing.assert_close(first, torch.autograd.grad(final.h.sum() + final.c.sum(), state, retain_graph=True)[0])
    torch.testing.assert_close(batched[0], torch.autograd.grad(final.h.sum(), state)[0])
