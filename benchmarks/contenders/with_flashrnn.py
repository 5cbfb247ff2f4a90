"""Runs FlashRNN's CUDA kernels, with the product of the input that FlashRNN leaves to its users.

The layouts were checked on the CPU against the package's own PyTorch code (``backend="vanilla"``, version 1.0.8).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.cases import Case, LayerCase
from benchmarks.contenders import Absent, Arrays, Settings, Work
from benchmarks.cuda import gpu_seconds

# the weights of one direction: W as in `torch.nn`; R (G, 1, H, H) and b (G, 1, H) as in FlashRNN, with one head
Weights = dict[str, Tensor]
# maps x (T, B, I), weights and the states before (None for zeros) to y (T, B, H) and the states after
Direction = Callable[[Tensor, Weights, Tensor | None], tuple[Tensor, Tensor]]

FUNCTIONS = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "elman"}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def versions(settings: Settings) -> dict[str, Any]:
    if settings.device != "cuda":
        raise Absent("FlashRNN's kernels are CUDA code; there is no GPU here")
    import flashrnn  # noqa: F401  # imported here, as it need not be installed where there is no GPU

    torch.set_num_threads(settings.threads)
    torch.backends.fp32_precision = settings.precision  # type: ignore[attr-defined]
    return {"flashrnn": version("flashrnn"), "torch": torch.__version__, "cuda": torch.version.cuda}


def why_not(case: Case, settings: Settings) -> str | None:
    if not isinstance(case, LayerCase):
        return "no training loop is written for it here"
    if case.cell not in FUNCTIONS:
        return "FlashRNN has no such cell"
    if case.ragged:
        return "FlashRNN knows no lengths"
    if case.dtype not in DTYPES:
        return "FlashRNN's kernels are for float32, float16 and bfloat16"
    return None


def prepare(case: Case, arrays: Arrays, settings: Settings) -> Work:
    """Prepare the work of a case, which takes minutes: FlashRNN compiles with nvcc for each tiling that it tries."""
    assert isinstance(case, LayerCase)
    # One kernel for all steps where it fits, else a product and a pointwise kernel in turn, as always for the GRU.
    # The fused kernel multiplies float32 in TF32.
    fuses = case.cell != "gru" and (case.dtype != "fp32" or settings.precision == "tf32")
    backend = "cuda_fused" if fuses else "cuda"

    def work() -> Work:
        return _work(case, arrays, partial(_run_direction, case, backend), settings.device)

    try:
        work().call()
    except (ValueError, RuntimeError):  # no tiling fits the shape, or none runs
        if not fuses:
            raise
        backend = "cuda"
        work().call()
    ready = work()  # a new one, as a step changes the states
    return ready._replace(
        wait=lambda _: torch.cuda.synchronize(),
        run=partial(gpu_seconds, ready.call),
        notes=lambda: {"backend": backend},
    )


def _run_direction(
    case: LayerCase, backend: str, x: Tensor, weights: Weights, states: Tensor | None
) -> tuple[Tensor, Tensor]:
    from flashrnn import FlashRNNConfig, flashrnn

    config = FlashRNNConfig(
        backend=backend,
        function=FUNCTIONS[case.cell],
        num_heads=1,
        head_dim=case.H,
        batch_size=case.B,
        dtype=str(x.dtype).removeprefix("torch."),
        # time first, as in the arrays and the kernels, so that nothing is transposed
        input_shape="TBGHD",
        output_shape="STBHD",
    )
    w_x = F.linear(x, weights["W"]).view(*x.shape[:2], -1, 1, case.H)
    every, last = flashrnn(w_x, weights["R"], weights["b"], states=states, config=config)
    return every[0, :, :, 0], last


def _to_flashrnn(case: LayerCase, arrays: Arrays, suffix: str) -> Arrays:
    """Convert the weights of a direction to FlashRNN's layout, and return W, R and b.

    Gates are in `torch.nn`'s order, except in the GRU. There R has its n first, and b has four parts: the recurrent n,
    r, z and the input's n.
    """
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    W, R, bias_ih, bias_hh = (arrays[f"{kind}_{suffix}"] for kind in kinds)
    R = R.reshape(-1, 1, case.H, case.H)
    bias_ih, bias_hh = (bias.reshape(-1, 1, case.H) for bias in (bias_ih, bias_hh))
    if case.cell == "gru":
        b = np.concatenate([bias_hh[2:], bias_ih[:2] + bias_hh[:2], bias_ih[2:]])
        return {"W": W, "R": np.roll(R, 1, axis=0), "b": b}
    return {"W": W, "R": R, "b": bias_ih + bias_hh}


def _to_torch(case: LayerCase, grads: Arrays, suffix: str) -> Arrays:
    W, R, b = (grads[name] for name in ("W", "R", "b"))
    if case.cell == "gru":
        R, b = np.roll(R, -1, axis=0), b[1:]
    found = {"weight_ih": W, "weight_hh": R.reshape(-1, case.H), "bias_ih": b.reshape(-1)}
    return {f"d_{kind}_{suffix}": grad for kind, grad in found.items()}


def _work(case: LayerCase, arrays: Arrays, run: Direction, device: str) -> Work:
    def placed(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device, DTYPES[case.dtype])

    weights = {
        suffix: {name: placed(array) for name, array in _to_flashrnn(case, arrays, suffix).items()}
        for suffix, _ in case.sizes()
    }
    x = placed(arrays["x"])
    if case.mode == "step":
        return _step(case, x[None], weights["l0"], [placed(arrays[n]) for n in ("h", "c") if n in arrays], run)

    def forward() -> Tensor:
        y = x
        for k in range(case.layers):
            ways = [run(y, weights[f"l{k}"], None)[0]]
            if case.bidirectional:
                ways.append(run(y.flip(0), weights[f"l{k}_reverse"], None)[0].flip(0))
            y = torch.cat(ways, -1) if case.bidirectional else ways[0]
        return y

    if case.mode == "infer":

        @torch.no_grad()
        def infer() -> dict[str, Tensor]:
            return {"y": forward()}

        return Work(infer, lambda _: None, _to_numpy)

    places = [(suffix, name) for suffix in weights for name in weights[suffix]]
    leaves = [x, *(weights[suffix][name] for suffix, name in places)]
    for leaf in leaves:
        leaf.requires_grad_()
    d_y = placed(arrays["d_y"])

    def train() -> dict[str, Tensor]:
        y = forward()
        d_x, *grads = torch.autograd.grad(y, leaves, d_y)
        named = {f"{suffix}.{name}": grad for (suffix, name), grad in zip(places, grads, strict=True)}
        return {"y": y.detach(), "d_x": d_x, **named}

    def outputs(result: dict[str, Tensor]) -> Arrays:
        given = _to_numpy(result)
        found = {name: given[name] for name in ("y", "d_x")}
        for suffix in weights:
            found |= _to_torch(case, {name: given[f"{suffix}.{name}"] for name in weights[suffix]}, suffix)
        return found

    return Work(train, lambda _: None, outputs)


def _step(case: LayerCase, x: Tensor, weights: Weights, given: list[Tensor], run: Direction) -> Work:
    states = torch.stack(given)[:, None, :, None]  # states, time, batch, head, H

    @torch.no_grad()
    def call() -> dict[str, Tensor]:
        nonlocal states
        y, states = run(x, weights, states)
        return {"y": y[0]}

    return Work(call, lambda _: None, _to_numpy)


def _to_numpy(result: dict[str, Tensor]) -> Arrays:
    return {name: value.detach().float().cpu().numpy() for name, value in result.items()}
