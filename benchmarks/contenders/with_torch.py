"""Runs seqnets with each of its backends, `torch.nn`, and what `torch.compile` makes of a cell's step.

`torch.nn` uses oneDNN or native code on the CPU, and cuDNN on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import seqnets
from benchmarks.cases import Case, LayerCase, TrainCase
from benchmarks.contenders import Arrays, Settings, Work
from benchmarks.contenders.torch_layers import LAYERS, SINGLE, options_of
from benchmarks.cuda import cudnn_algorithm, gpu_seconds, launch_times
from seqnets.cells import get_cell
from seqnets.kernels.arguments import DTYPES
from seqnets.kernels.availability import triton_version
from seqnets.kernels.cpp.build import compiler_version


def versions(settings: Settings) -> dict[str, Any]:
    torch.set_num_threads(settings.threads)
    torch.backends.fp32_precision = settings.precision  # type: ignore[attr-defined]
    found: dict[str, Any] = {"torch": torch.__version__}
    if settings.contender.startswith("seqnets"):
        found |= {"seqnets": seqnets.__version__, "triton": triton_version()}
    if settings.device == "cuda":
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    elif settings.contender.startswith("seqnets"):
        found["compiler"] = compiler_version()
    return found


def why_not(case: Case, settings: Settings) -> str | None:
    if isinstance(case, TrainCase):
        from benchmarks.contenders.training import why_not as why_not_train

        return why_not_train(settings.contender)
    assert isinstance(case, LayerCase)
    if settings.contender == "torch.nn" and case.cell not in LAYERS:
        return "torch.nn has no such cell"
    if settings.contender == "torch.compile" and case.ragged:
        return "as for dense batches, with a mask at every step: not measured"
    if settings.contender == "torch.compile-step" and (case.ragged or get_cell(case.cell).masks):
        return "the loop that is written here knows no lengths"
    if settings.contender == "torch.compile":
        steps = case.T * case.layers * case.directions
        if steps > settings.unroll:
            return (
                f"it would unroll {steps} time steps and compile each for two seconds or so; "
                f"benchmark with unroll={steps} to wait for that"
            )
    if backend := settings.contender.partition("seqnets-")[2]:
        return _why_cannot(case, backend, settings)
    return None


def _why_cannot(case: LayerCase, backend: str, settings: Settings) -> str | None:
    """Return the dispatch's reason why a backend that was asked for by name cannot run the case, or None."""
    options: dict[str, Any] = {"device": settings.device, "dtype": DTYPES[case.dtype]}
    layer = seqnets.Recurrent(case.cell, case.I, case.H, case.layers, bidirectional=case.bidirectional, **options)
    x = torch.zeros(case.T, case.B, case.I, **options)
    lengths = torch.full((case.B,), case.T, device=settings.device) if case.ragged else None
    with torch.set_grad_enabled(case.mode == "train"):
        return seqnets.explain(layer, x, lengths=lengths).reasons[backend]


def prepare(case: Case, arrays: Arrays, settings: Settings) -> Work:
    if isinstance(case, TrainCase):
        from benchmarks.contenders.training import prepare_torch

        return prepare_torch(case, arrays, settings)
    assert isinstance(case, LayerCase)
    if settings.contender.startswith("torch.compile"):
        torch.compiler.reset()  # drops what was compiled for other cases, of which there may be too many
    tensors = {
        name: torch.from_numpy(value).to(settings.device, DTYPES[case.dtype])
        for name, value in arrays.items()
        if name != "lengths"
    }
    lengths = torch.from_numpy(arrays["lengths"]).to(settings.device) if "lengths" in arrays else None
    module, forward = _step(case, tensors, settings) if case.mode == "step" else _sequence(case, lengths, settings)
    module.to(settings.device, DTYPES[case.dtype])
    module.load_state_dict(
        {
            name.removesuffix("_l0") if isinstance(module, nn.RNNCellBase) else name: tensors[name]
            for name in _names(case)
        }
    )
    if case.mode == "train":
        work = _train(module, forward, tensors)
    else:
        module.eval().requires_grad_(False)
        work = Work(lambda: {"y": forward(tensors["x"])}, lambda y: None, _to_numpy)

    def notes() -> dict[str, Any]:
        told: dict[str, Any] = {}
        if isinstance(module, seqnets.Recurrent) and settings.contender.startswith("seqnets"):
            x = tensors["x"][None] if case.mode == "step" else tensors["x"]
            with torch.set_grad_enabled(case.mode == "train"):
                told["backend"] = seqnets.explain(module, x, lengths=lengths).backend
        if settings.device == "cuda" and settings.contender in ("torch.nn", "seqnets-aten") and case.mode != "step":
            told["cudnn"] = cudnn_algorithm(case, torch.cuda.get_device_properties(0))
        return told

    if settings.device == "cuda":
        work = work._replace(
            wait=lambda _: torch.cuda.synchronize(),
            run=partial(gpu_seconds, work.call),
            launches=partial(launch_times, work.call),
        )
    return work._replace(notes=notes)


def _names(case: LayerCase) -> list[str]:
    kinds = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", *get_cell(case.cell).params]
    return [f"{kind}_{suffix}" for suffix, _ in case.sizes() for kind in kinds]


def _sequence(
    case: LayerCase, lengths: Tensor | None, settings: Settings
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Return the layer, and a function that calls it, with lengths as users of ragged batches give them."""
    options: dict[str, Any] = {"num_layers": case.layers, "bidirectional": case.bidirectional}
    if settings.contender == "torch.nn":
        layer = LAYERS[case.cell](case.I, case.H, **options, **options_of(case.cell))
        if lengths is None:
            return layer, lambda x: layer(x)[0]
        on_host = lengths.cpu()

        def packed(x: Tensor) -> Tensor:
            y, _ = layer(pack_padded_sequence(x, on_host, enforce_sorted=False))
            return pad_packed_sequence(y)[0]

        return layer, packed
    backend = "reference" if settings.contender.startswith("torch") else settings.contender.partition("-")[2] or "auto"
    ours = seqnets.Recurrent(case.cell, case.I, case.H, backend=backend, **options)
    if settings.contender == "torch.compile":
        compiled = torch.compile(ours, dynamic=False, fullgraph=True)
        return ours, lambda x: compiled(x)[0]
    if settings.contender == "torch.compile-step":
        return ours, _loop_of_compiled_steps(ours, case)
    return ours, lambda x: ours(x, lengths=lengths)[0]


def _loop_of_compiled_steps(layer: seqnets.Recurrent, case: LayerCase) -> Callable[[Tensor], Tensor]:
    """Return a loop around a compiled step, as users write it who do not want the compiler to unroll the loop."""
    cell, parameters = layer.cell, dict(layer.named_parameters())

    @torch.compile(dynamic=False, fullgraph=True)
    def step(x_t: Tensor, state: list[Tensor], weight: Tensor, bias: Tensor, own: Sequence[Tensor]) -> list[Tensor]:
        r_t = F.linear(state[0], weight, bias)
        return list(cell(x_t.chunk(cell.gates, -1), r_t.chunk(cell.gates, -1), state, own))

    def run_direction(x: Tensor, suffix: str) -> Tensor:
        weight_ih, weight_hh, bias_ih, bias_hh = (
            parameters[f"{kind}_{suffix}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        own = [parameters[f"{name}_{suffix}"] for name in cell.params]
        steps = F.linear(x, weight_ih, bias_ih).unbind(0)
        backwards = suffix.endswith("_reverse")
        state = [x.new_zeros(x.shape[1], case.H) for _ in cell.states]
        every = []
        for x_t in reversed(steps) if backwards else steps:
            state = step(x_t, state, weight_hh, bias_hh, own)
            every.append(state[0])
        return torch.stack(every[::-1] if backwards else every)

    def run(x: Tensor) -> Tensor:
        for k in range(case.layers):
            x = torch.cat([run_direction(x, s) for s, _ in case.sizes() if s.startswith(f"l{k}")], -1)
        return x

    return run


def _step(
    case: LayerCase, tensors: dict[str, Tensor], settings: Settings
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Return a module, and a function that does one step with it and keeps the state for the next."""
    state: Any = [tensors[name] for name in get_cell(case.cell).states]
    if settings.contender == "torch.nn":
        cell = SINGLE[case.cell](case.I, case.H, **options_of(case.cell))

        def run_cell(x: Tensor) -> Tensor:
            nonlocal state
            new = cell(x, state if case.cell == "lstm" else state[0])
            state = list(new) if case.cell == "lstm" else [new]
            return state[0]

        return cell, run_cell
    compiles = settings.contender.startswith("torch.compile")
    backend = "reference" if compiles else settings.contender.partition("-")[2] or "auto"
    layer = seqnets.Recurrent(case.cell, case.I, case.H, backend=backend)
    state = tuple(s[None] for s in state)
    step = torch.compile(layer.step, dynamic=False, fullgraph=True) if compiles else layer.step

    def run_step(x: Tensor) -> Tensor:
        nonlocal state
        y, state = step(x, state)
        return y

    return layer, run_step


def _train(module: nn.Module, forward: Callable[[Tensor], Tensor], tensors: dict[str, Tensor]) -> Work:
    x = tensors["x"].requires_grad_()
    parameters = dict(module.named_parameters())
    inputs, d_y = [x, *parameters.values()], tensors["d_y"]

    def call() -> dict[str, Tensor]:
        y = forward(x)
        grads = torch.autograd.grad(y, inputs, d_y)
        return {"y": y.detach(), **{f"d_{n}": g for n, g in zip(["x", *parameters], grads, strict=True)}}

    def saved_bytes() -> int:
        given = {t.untyped_storage().data_ptr() for t in inputs}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            y = forward(x)  # held, so that no storage is freed and its address counted for another
        del y
        return sum(size for pointer, size in kept.items() if pointer not in given)

    return Work(call, lambda result: None, _to_numpy, saved_bytes=saved_bytes)


def _to_numpy(result: dict[str, Tensor]) -> Arrays:
    return {name: value.detach().float().cpu().numpy() for name, value in result.items()}
