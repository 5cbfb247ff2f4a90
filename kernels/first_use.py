"""The first use of a generated kernel on a device: a small random problem, judged against the cell's own step.

A kernel may meet a GPU, a driver or a Triton version that nobody tried. One that disagrees is refused.
"""

from __future__ import annotations

import logging
import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.cells.cell import find_cell
from seqnets.kernels import store
from seqnets.kernels.apart import apart
from seqnets.kernels.generation.module import generate
from seqnets.kernels.operator import recurrence
from seqnets.kernels.packed import run_packed
from seqnets.kernels.planning.plan import Plan
from seqnets.kernels.planning.select import precision_of
from seqnets.tolerance import verdict

log = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "SEQNETS_CHECK"
STEPS, BATCH = 3, 5


class Variant(NamedTuple):
    """What a kernel is compiled for, as far as it can differ between two calls of one layer. Plain values only."""

    cell: str  # its key
    N: int
    U: int
    D: int
    ragged: bool
    per_step: tuple[bool, ...]
    dtype: torch.dtype
    bias: bool
    differentiated: bool
    keep_r: bool


def is_checked() -> bool:
    """Whether first uses are checked: not with ``SEQNETS_CHECK=0``."""
    return os.environ.get(ENVIRONMENT_VARIABLE, "").lower() not in ("0", "false", "off", "no")


_verdicts: dict[tuple[Variant, torch.device, tuple[Plan, ...]], str | None] = {}


def why_disagrees(variant: Variant, device: torch.device, plans: tuple[Plan, ...]) -> str | None:
    """What is wrong with the kernels of that variant on that device, by those plans, as a clause, or None.

    The verdict is kept for the process, and on disk for the GPU, the versions and the source that it is about.
    """
    question = variant, device, plans
    if question not in _verdicts:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return "the check of its kernels' first use cannot run while a CUDA graph is captured: run the layer once before"
        _verdicts[question] = apart(_find_verdict, *question)
    return _verdicts[question]


def _find_verdict(variant: Variant, device: torch.device, plans: tuple[Plan, ...]) -> str | None:
    cell = find_cell(variant.cell)
    key = {
        **store.surroundings(device),
        **variant._asdict(),
        "dtype": str(variant.dtype),
        "plans": [plan._asdict() for plan in plans],
        "cell": generate(cell).digest,
    }
    known = store.read("check", key)
    if known is None:
        try:
            known = {"why": _judge(cell, variant, device)}
        except Exception as error:  # of the compiler or the driver, say: told in full, and a reason for another backend
            log.warning("The kernels of %r failed on their first use.", cell.name, exc_info=True)
            reason = str(error).partition("\n")[0]
            return f"on first use its kernels failed ({type(error).__name__}: {reason}); the log has the traceback"
        store.write("check", key, known)
    return known["why"]


def _judge(cell: Cell, variant: Variant, device: torch.device) -> str | None:
    tf32 = variant.dtype is torch.float32 and precision_of(variant.dtype) == "tf32" and device.type == "cuda"
    for what, actual, baseline, oracle in compare(cell, variant, device):
        error, allowed = verdict(actual, baseline, oracle, tf32)
        if not error <= allowed:
            return (
                f"on first use its kernels disagreed with the cell's step: {what} is off by {error:.2g} where {allowed:.2g} "
                f"is allowed ({ENVIRONMENT_VARIABLE}=0 switches this check off; python -m seqnets.doctor says more)"
            )
    return None


def compare(
    cell: Cell, variant: Variant, device: torch.device, steps: int = STEPS, batch: int = BATCH
) -> list[tuple[str, Tensor, Tensor, Tensor]]:
    """Name, value by the kernels, value by PyTorch in the same dtype, and in float64, of outputs and gradients.

    Where a step is not defined, and PyTorch's own values are not finite, there is nothing to compare.
    """
    problem = _random_problem(cell, variant, steps, batch)
    with torch.inference_mode(False), torch.set_grad_enabled(variant.differentiated):
        runs = [
            _run(cell, variant, problem, device, variant.dtype, kernels=True),
            _run(cell, variant, problem, device, variant.dtype, kernels=False),
            _run(cell, variant, problem, device, torch.float64, kernels=False),
        ]
    found = []
    for name, oracle in runs[2].items():
        known = oracle.isfinite() & runs[1][name].isfinite()
        found.append((name, runs[0][name][known], runs[1][name][known], oracle[known]))
    return found


def _random_problem(cell: Cell, variant: Variant, steps: int, batch: int) -> dict[str, Any]:
    """Its tensors, float32 on the CPU, rounded to the dtype; drawn apart from the user's random numbers."""
    generator = torch.Generator().manual_seed(0)
    _, N, U, D, ragged, per_step, dtype, bias, *_ = variant
    Q = cell.gates * U

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator) * scale).to(dtype)

    lengths = torch.randint(0, steps + 1, (batch,), generator=generator)
    return {
        "x": normal(steps, batch, D, N, Q),
        "state": [normal(D, batch, N, U).abs() for _ in cell.states],  # some are never negative, such as normalisers
        "weight": normal(D, N, U, Q, scale=U**-0.5),
        "bias": normal(D, N, Q) if bias else None,
        "params": [normal(D, N, U) for _ in cell.params],
        "masks": [
            (torch.rand(D, steps if per else 1, batch, N, U, generator=generator) < 0.7).to(dtype) for per in per_step
        ],
        "lengths": lengths if ragged else None,
        "cotangents": [normal(steps, batch, D, N, U), *(normal(D, batch, N, U) for _ in cell.states)],
    }


def _run(
    cell: Cell, variant: Variant, problem: dict[str, Any], device: torch.device, dtype: torch.dtype, kernels: bool
) -> dict[str, Tensor]:
    def place(value: Any) -> Any:
        if isinstance(value, list):
            return [place(v) for v in value]
        if value is None or not value.is_floating_point():
            return None if value is None else value.to(device)
        return value.to(device, dtype, copy=True).requires_grad_(variant.differentiated)  # gradients of its own

    given = {name: place(value) for name, value in problem.items() if name != "cotangents"}
    if kernels:
        S = len(cell.states)
        outputs = recurrence(**given, cell=cell.key, keep_states=variant.differentiated, keep_r=variant.keep_r)
        y, finals = outputs[0], outputs[S if variant.differentiated else 1 :][:S]
    else:
        states, finals = run_packed(cell, **given)
        y, *finals = (t.unflatten(-1, (variant.N, -1)) for t in (states[0], *finals))
    found = {"y": y, **{f"final {name}": f for name, f in zip(cell.states, finals, strict=True)}}
    if variant.differentiated:
        cotangents = [c.to(device, dtype) for c in problem["cotangents"]]
        # by the step itself, an output can be a constant; its gradients are then those of the others
        tracked = [(v, c) for v, c in zip([y, *finals], cotangents, strict=True) if v.requires_grad]
        torch.autograd.backward([v for v, _ in tracked], [c for _, c in tracked])
        owners = {"x": [given["x"]], "weight": [given["weight"]], "bias": [given["bias"]] if variant.bias else []}
        owners |= {"initial state": given["state"], "parameter": given["params"]}
        found |= {
            f"gradient of {name} {k}".removesuffix(" 0"): torch.zeros_like(t) if t.grad is None else t.grad
            for name, tensors in owners.items()
            for k, t in enumerate(tensors)
        }
    return {name: tensor.detach().cpu() for name, tensor in found.items()}
