"""Measures the plans that the capacity rule allows, and keeps the fastest correct one on the user's own GPU."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from triton.errors import TritonError

from seqnets.cells import Cell
from seqnets.errors import BackendError
from seqnets.kernels.availability import why_unavailable
from seqnets.kernels.timing import BATCH, STEPS, Timer, time_on_gpu
from seqnets.kernels.triton import launch
from seqnets.kernels.triton.agreement import variants, worst_error
from seqnets.kernels.triton.module import generate
from seqnets.kernels.triton.planning.candidates import candidates
from seqnets.kernels.triton.planning.capacity import Refusal, choose
from seqnets.kernels.triton.planning.plan import Plan
from seqnets.kernels.triton.planning.select import arch_here, demand_of, try_plan
from seqnets.kernels.triton.planning.tuned import keep

MARGIN = 0.02  # fraction of time by which a plan must beat the rule's, so that noise does not decide


class Tuned(NamedTuple):
    """Holds what was found for one pass."""

    backward: bool
    plan: Plan  # the plan that is kept
    default: Plan  # the capacity rule's
    milliseconds: float  # median of `plan`
    default_milliseconds: float  # median of `default`
    tried: int  # number of plans
    rejected: dict[Plan, str]  # with the reason


def describe(plan: Plan) -> str:
    inner = f", {plan.block_k} deep" if plan.block_k else ""
    return f"{plan.schedule} {plan.block_b}x{plan.block_u}{inner}, {plan.warps} warps, {plan.stages} stages"


def tune(
    cell: Cell,
    hidden: int,
    dtype: torch.dtype,
    heads: int = 1,
    batch: int = BATCH,
    steps: int = STEPS,
    device: torch.device | str = "cuda",
    timer: Timer[Plan] | None = None,
) -> list[Tuned]:
    """Measure each plan for the forward and the backward pass of a layer of one direction, and keep the fastest.

    The kept plan serves this cell, hidden size, number of heads and dtype at every T and B, until the GPU, its driver,
    torch, Triton or the kernels change. A plan is kept only if its results agree with the cell's step, by the tolerance
    policy. Progress is printed on standard error.

    Args:
        cell: The cell of the layer.
        hidden: H, all heads together.
        dtype: The dtype of the layer.
        heads: The number of heads.
        batch, steps: B and T of the problem that is measured.
        device: The GPU to measure on.
        timer: Measures the times; CUDA events by default.

    Returns:
        What was found for the forward pass, and for the backward pass.

    Raises:
        BackendError: There is no GPU, or no kernel serves the cell on it, or the capacity rule's own plan is wrong
            there.
        CellError: Kernels cannot be generated from the cell.
        ValueError: The number of heads does not divide the hidden size.
    """
    device = torch.device(device)
    if timer is None and not (device.type == "cuda" and torch.cuda.is_available()):
        raise BackendError("tuning measures kernels on a GPU, and PyTorch finds none here")
    unavailable = why_unavailable(device.type)
    if unavailable is not None:
        raise BackendError(f"there is nothing to tune: {unavailable}")
    if hidden % heads:
        raise ValueError(f"heads must divide the hidden size: {heads} do not divide {hidden}")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    inputs = _random_inputs(cell, hidden // heads, heads, dtype, device, batch, steps)
    with torch.no_grad(), torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        return [_tune_pass(cell, inputs, backward, timer or time_on_gpu) for backward in (False, True)]


def _tune_pass(cell: Cell, inputs: launch.Inputs, backward: bool, timer: Timer[Plan]) -> Tuned:
    device, dtype, (_, N, U, _) = inputs.x.device, inputs.x.dtype, inputs.weight.shape
    arch, demand = arch_here(device), demand_of(cell, U, N, dtype, backward)
    if isinstance(arch, str):
        raise BackendError(f"there is nothing to tune: {arch}")
    default = choose(demand, arch)
    if isinstance(default, Refusal):
        raise BackendError(f"there is nothing to tune: {default.why}")
    rejected: dict[Plan, str] = {}
    runs: dict[Plan, Callable[[], None]] = {}
    plans, launches = candidates(demand, arch), _launches(cell, inputs, backward)
    for number, plan in enumerate(plans, 1):
        print(f"{'backward' if backward else 'forward'} [{number}/{len(plans)}] {describe(plan)}", file=sys.stderr)
        try:
            _run(launches, plan)
        except (TritonError, RuntimeError) as error:  # a compiler error, or the plan needs too much of a resource
            if plan == default:
                raise
            rejected[plan] = f"{type(error).__name__}: {error}"
        else:
            runs[plan] = partial(_run, launches, plan)
    times = timer(runs)
    for plan in ranking(times, default):
        why = _why_wrong(cell, N, U, dtype, device, plan, backward)
        if why is None:
            break
        rejected[plan] = why
    else:
        raise BackendError(
            f"the rule's own plan is wrong here: {rejected[default]} (python -m seqnets.doctor says more)"
        )
    medians = {p: statistics.median(times[p]) for p in (plan, default)}
    found = Tuned(backward, plan, default, medians[plan], medians[default], len(plans), rejected)
    keep(
        generate(cell).digest,
        demand,
        device,
        plan,
        milliseconds=medians[plan],
        steps=len(inputs.x),
        batch=inputs.x.shape[1],
    )
    return found


def _why_wrong(
    cell: Cell, N: int, U: int, dtype: torch.dtype, device: torch.device, plan: Plan, backward: bool
) -> str | None:
    try:
        with try_plan(plan, backward):
            worst = worst_error(cell, variants(cell, N, U, dtype, differentiated=True), device)
    except TritonError as error:  # the plan ran the measured problem, but fails on a ragged batch
        return f"{type(error).__name__}: {error}"
    return (
        None if worst.ratio <= 1 else f"{worst.what} is off by {worst.error:.2g} where {worst.allowed:.2g} is allowed"
    )


def ranking(times: Mapping[Plan, list[float]], default: Plan) -> list[Plan]:
    """Return the plans that beat the default by `MARGIN`, fastest first, followed by the default itself.

    Plans are compared by the median, over all turns, of the ratio of their time to the default's time in the same turn.
    """
    ratios = {
        plan: statistics.median(time / base for time, base in zip(turns, times[default], strict=True))
        for plan, turns in times.items()
    }
    return [*sorted((plan for plan in times if ratios[plan] < 1 - MARGIN), key=ratios.__getitem__), default]


def _random_inputs(
    cell: Cell, U: int, N: int, dtype: torch.dtype, device: torch.device, batch: int, steps: int
) -> launch.Inputs:
    """Return random inputs of one direction, with a bias and without lengths."""
    Q = cell.gates * U

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, dtype=dtype, device=device) * scale

    return launch.Inputs(
        normal(steps, batch, 1, N, Q),
        tuple(normal(1, batch, N, U) for _ in cell.states),
        normal(1, N, U, Q, scale=U**-0.5),
        normal(1, N, Q),
        tuple(normal(1, N, U) for _ in cell.params),
        tuple(torch.ones(1, 1, batch, N, U, dtype=dtype, device=device) for _ in cell.masks),
        None,
    )


def _launches(cell: Cell, inputs: launch.Inputs, backward: bool) -> Callable[[Plan], Iterable[launch.Launch]]:
    """Return a function that maps a plan to the launches of one pass in training.

    Matrix products before and after the launches are left out, because they are the same for all plans.
    """
    generated = generate(cell)
    if not backward:
        filled = launch.allocate_outputs(inputs, keep_states=True, keep_r=True)
        return lambda plan: launch.forward(generated, inputs, filled, plan)
    outputs = launch.run_forward(cell, inputs, keep_states=True, keep_r=True)
    d_states = tuple(None if k else torch.randn_like(y) for k, y in enumerate(outputs.states) if y is not None)
    d_finals = tuple(torch.zeros_like(final) for final in outputs.finals)
    gradients = launch.allocate_gradients(generated, inputs)
    return lambda plan: launch.backward(generated, inputs, outputs, d_states, d_finals, gradients, plan)


def _run(launches: Callable[[Plan], Iterable[launch.Launch]], plan: Plan) -> None:
    for kernel in launches(plan):
        kernel.run()
