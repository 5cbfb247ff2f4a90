"""Does the work of a worker: judges a kernel, compiles what is timed later, and times a layer beside cuDNN."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import seqnets
from benchmarks.cases import LayerCase
from benchmarks.cells import light
from benchmarks.cuda import clocks, cudnn_algorithm, gpu_seconds, graph_seconds, host_seconds
from benchmarks.prove.workers import SPENT
from seqnets.errors import BackendError
from seqnets.kernels.availability import CHECK
from seqnets.kernels.report.compilations import Compilation, watch_compilations
from seqnets.kernels.triton.agreement import variants, worst_error
from seqnets.kernels.triton.planning.select import find_plan, use_schedule
from seqnets.kernels.triton.trial import Variant
from seqnets.tolerance import Error, verdict

CELLS = {"lstm": seqnets.CELLS["lstm"], "gru": seqnets.CELLS["gru"], "light": light}
TORCH = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
# "tf32" is float32 with products in TF32; in "fp32" they have full precision
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "tf32": torch.float32}
MODES = ("infer", "train")
TURNS = 5
TURN_SECONDS = 0.02  # about how long the calls of a turn take


class Shape(NamedTuple):
    """Describes a layer on one batch. T: time steps, B: batch, I: input size, H: hidden size."""

    cell: str
    dtype: str
    T: int
    B: int
    I: int
    H: int
    layers: int = 1
    bidirectional: bool = False

    def __str__(self) -> str:
        told = f"{self.cell} {self.dtype} T={self.T} B={self.B} I={self.I} H={self.H}"
        return told + f" layers={self.layers}" * (self.layers > 1) + " bidirectional" * self.bidirectional

    @property
    def kernels(self) -> str:
        """Return what the layer's kernels depend on, in words."""
        return f"{self.cell} {self.dtype} H={self.H}" + " bidirectional" * self.bidirectional

    def case(self, mode: str) -> LayerCase:
        dtype = "fp32" if self.dtype == "tf32" else self.dtype
        return LayerCase("layer", self.cell, mode, *self[2:7], self.bidirectional, dtype=dtype)


class Here(NamedTuple):
    """Holds where a worker runs, and whether it judges results."""

    device: str
    judged: bool  # False with the stub, which computes nothing


here = Here("cuda", True)


def prepare(stub: bool) -> None:
    """Set up the process: install the stub if asked to, and turn off self-checks at first use, which are done here."""
    global here
    os.environ[CHECK] = "0"
    warnings.filterwarnings("ignore", "Failed to initialize NumPy")  # nothing here needs NumPy
    torch.set_num_threads(1)  # there are as many processes as cores
    here = Here("cpu" if stub else "cuda", not stub)
    if stub:
        from benchmarks.prove.stub_gpu import install

        install()


def set_precision(dtype: str) -> None:
    precision = "tf32" if dtype == "tf32" else "ieee"
    for setting in (torch.backends.cudnn.rnn, torch.backends.cuda.matmul):
        setting.fp32_precision = precision  # type: ignore[union-attr]


def check(cell: str, dtype: str, schedule: str, H: int, mode: str) -> dict[str, Any]:
    """Judge the kernels of a schedule step by step, by the project's tolerance policy.

    See `seqnets.kernels.triton.agreement`.

    Returns:
        The verdict and what was compiled; or ``not_served``, the reason why the schedule cannot be used.
    """
    set_precision(dtype)
    found, device, own = DTYPES[dtype], torch.device(here.device), CELLS[cell]
    compiled: list[Compilation] = []
    with watch_compilations(compiled), use_schedule(schedule):
        for backward in (False, True)[: 1 + (mode == "train")]:
            plan = find_plan(own, H, 1, found, device, backward)
            if isinstance(plan, str):
                return {"not_served": plan}
        worst = worst_error(own, variants(own, 1, H, found, mode == "train"), device)
    return judged([worst]) | compilations(compiled)


def compile_layer(shape: Shape) -> dict[str, Any]:
    """Compile what `time_layer` runs, as ``python -m seqnets.kernels compile`` does, without launching anything.

    Returns:
        The numbers of kernels needed and compiled, and the seconds that took; or ``not_served``, the reason why not.
    """
    from seqnets.kernels.triton.compiling import Refused, compile_one, missing, place_here, plan_variant

    set_precision(shape.dtype)
    cell, place = CELLS[shape.cell], place_here(torch.device(here.device))
    if isinstance(place, str):
        return {"not_served": place}
    requests = []
    for mode in MODES:
        differentiated = mode == "train"
        variant = Variant(
            cell.key, N=1, U=shape.H, D=1 + shape.bidirectional, ragged=False, per_step=(), dtype=DTYPES[shape.dtype],
            bias=True, differentiated=differentiated, keep_r=differentiated, all_states=False,
        )  # fmt: skip
        planned = plan_variant(cell, variant, place)
        if isinstance(planned, Refused):
            return {"not_served": planned.why}
        requests += planned
    seconds = [compile_one(request) for request in missing(requests)]
    return {"kernels": len(set(requests)), "compiled": len(seconds), "compile_seconds": sum(seconds)}


def time_layer(shape: Shape) -> dict[str, Any]:
    """Time inference and training beside torch.nn (cuDNN): on the GPU in turns, on the host, and last in CUDA graphs.

    What is timed is judged first, against float64; see `judge`.

    Returns:
        The verdict, the times in seconds by mode and contender, cuDNN's algorithms, the clocks and what was compiled;
        or ``not_served``, the reason why not.
    """
    set_precision(shape.dtype)
    compiled: list[Compilation] = []
    try:
        with watch_compilations(compiled):
            layers = _layers(shape)
            found: dict[str, Any] = judge(layers, shape)
            times = {mode: _times(layers, mode) for mode in MODES}
            found["clocks"] = clocks()  # while they are up
            for mode in MODES:  # last, as a capture that fails spoils the process
                for name, call in _calls(layers, mode).items():
                    times[mode][name] |= graph_seconds(call)
    except BackendError as error:  # for example, this GPU is too small
        return {"not_served": str(error)}
    found |= {"times": times, "cudnn": _algorithms(shape) if shape.cell in TORCH else None}
    spent = any("why_no_graph" in told for contenders in times.values() for told in contenders.values())
    return found | compilations(compiled) | {SPENT: spent}


def _times(layers: _Layers, mode: str) -> dict[str, dict[str, Any]]:
    """Return the seconds per call of each contender, on the GPU turn by turn, and on the host."""
    competitors = _calls(layers, mode)
    turns = _in_turns(competitors)
    return {
        name: {"gpu_seconds": turns[name], "host_seconds": host_seconds(call)} for name, call in competitors.items()
    }


class _Layers(NamedTuple):
    ours: torch.nn.Module
    theirs: torch.nn.Module | None  # of torch.nn, where it has the cell
    x: Tensor
    d_y: Tensor


def _layers(shape: Shape) -> _Layers:
    torch.manual_seed(0)
    given: dict[str, Any] = {"num_layers": shape.layers, "bidirectional": shape.bidirectional}
    ours = seqnets.Recurrent(CELLS[shape.cell], shape.I, shape.H, backend="triton", **given)
    theirs = TORCH[shape.cell](shape.I, shape.H, **given) if shape.cell in TORCH else None
    if theirs is not None:
        theirs.load_state_dict(ours.state_dict())
    x = torch.randn(shape.T, shape.B, shape.I)
    d_y = torch.randn(shape.T, shape.B, shape.H * (1 + shape.bidirectional))
    return _placed(_Layers(ours, theirs, x, d_y), DTYPES[shape.dtype])


def _placed(layers: _Layers, dtype: torch.dtype) -> _Layers:
    ours, theirs, x, d_y = layers
    return _Layers(
        ours.to(here.device, dtype),
        None if theirs is None else theirs.to(here.device, dtype),
        x.to(here.device, dtype).requires_grad_(),
        d_y.to(here.device, dtype),
    )


def _calls(layers: _Layers, mode: str) -> dict[str, Callable[[], Any]]:
    """Return the call of each contender in a mode, and set its layer to the mode.

    In inference, cuDNN then keeps nothing for backward.
    """
    contenders = {"seqnets": layers.ours} | ({} if layers.theirs is None else {"torch.nn": layers.theirs})
    for layer in contenders.values():
        layer.train(mode == "train")
    if mode == "train":
        return {name: partial(outputs_and_gradients, layer, layers.x, layers.d_y) for name, layer in contenders.items()}
    return {name: partial(_infer, layer, layers.x) for name, layer in contenders.items()}


def _infer(layer: torch.nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return layer(x)[0]


def outputs_and_gradients(layer: torch.nn.Module, x: Tensor, d_y: Tensor) -> list[Tensor]:
    y = layer(x)[0]
    return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], d_y)]


def judge(layers: _Layers, shape: Shape) -> dict[str, Any]:
    """Judge the output and all gradients against torch.nn (or the cell's own steps) in float64 and in the same dtype.

    This is stricter than `check` in one way: whole sequences are compared, at the size that is timed. A step with a
    kink could fail it for rounding alone, but none of the cells here has one.
    """
    names = ["y", "gradient of x", *(f"gradient of {name}" for name, _ in layers.ours.named_parameters())]
    actual = outputs_and_gradients(layers.ours, layers.x, layers.d_y)
    other = layers.theirs if layers.theirs is not None else _by_steps(layers, shape)
    baseline = outputs_and_gradients(other, layers.x, layers.d_y)
    try:
        x, d_y = layers.x.detach().double().requires_grad_(), layers.d_y.double()
        oracle = outputs_and_gradients(other.double(), x, d_y)
    finally:
        other.to(layers.x.dtype)
    tf32 = shape.dtype == "tf32"
    every = zip(names, actual, baseline, oracle, strict=True)
    errors = [Error(name, *verdict(ours, theirs, truth, tf32)) for name, ours, theirs, truth in every]
    return judged(errors)


def _by_steps(layers: _Layers, shape: Shape) -> torch.nn.Module:
    """Return the same layer, run by the cell's own steps."""
    reference = seqnets.Recurrent(
        CELLS[shape.cell], shape.I, shape.H, shape.layers, bidirectional=shape.bidirectional, backend="reference"
    )
    reference.load_state_dict(layers.ours.state_dict())
    return reference.to(layers.x.device, layers.x.dtype)


def _in_turns(competitors: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Return the seconds per call on the GPU, turn by turn; in a turn, all competitors get about the same time."""
    numbers = {name: _calls_of_a_turn(call) for name, call in competitors.items()}
    turns: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(TURNS):
        for name, call in competitors.items():
            turns[name].append(gpu_seconds(call, numbers[name], here.device) / numbers[name])
    return turns


def _calls_of_a_turn(call: Callable[[], Any]) -> int:
    took = []
    for _ in range(2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return max(1, min(20, int(TURN_SECONDS / took[-1])))


def _algorithms(shape: Shape) -> dict[str, str]:
    properties = torch.cuda.get_device_properties(0)
    return {mode: cudnn_algorithm(shape.case(mode), properties) for mode in MODES}


def judged(errors: list[Error]) -> dict[str, Any]:
    """Return the worst of the errors, and whether it is within what is allowed; None for both with the stub."""
    worst = max(errors, key=lambda error: error.ratio)
    if not here.judged:
        return {"worst": worst.what, "error": None, "allowed": None, "error_over_allowed": None, "agrees": None}
    told = {"worst": worst.what, "error": _number(worst.error), "allowed": _number(worst.allowed)}
    return told | {"error_over_allowed": _number(worst.ratio), "agrees": worst.ratio <= 1}


def _number(value: float) -> float | None:
    return value if value < float("inf") else None  # JSON has neither infinity nor nan


def compilations(seen: list[Compilation]) -> dict[str, Any]:
    """Return how many kernels were needed, how many of them were compiled, and the total seconds of compilation."""
    new = [c.seconds for c in seen if not c.cached]
    return {"kernels": len(seen), "compiled": len(new), "compile_seconds": sum(new)}
