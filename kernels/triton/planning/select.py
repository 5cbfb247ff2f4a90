"""Selects the plan for given tensors: by the capacity rule, unless this GPU was measured or a schedule is requested."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from seqnets.cells import Cell
from seqnets.errors import BackendError
from seqnets.kernels.availability import interpreted
from seqnets.kernels.triton.module import generate
from seqnets.kernels.triton.planning.arch import ARCHS, Arch, arch_of
from seqnets.kernels.triton.planning.capacity import Demand, Refusal, choose
from seqnets.kernels.triton.planning.plan import Plan
from seqnets.kernels.triton.planning.tuned import is_consulted, tuned_plan
from seqnets.overrides import override

INTERPRETED_ARCH = "sm_90"  # the interpreter runs the plans of this architecture

_schedules: list[list[str]] = []
_trials: dict[bool, Plan] = {}  # by pass: True is backward


@contextmanager
def use_schedule(name: str) -> Iterator[None]:
    """Run kernels by the schedule `name`, ``"resident"`` or ``"tiled"``, within a ``with`` block.

    This serves checks and comparisons. A problem that the schedule cannot run raises `BackendError`. The choice holds
    for the whole process, not for one thread.
    """
    with override(_schedules, name):
        yield


@contextmanager
def try_plan(plan: Plan, backward: bool) -> Iterator[None]:
    """Run one of the passes by `plan` within a ``with`` block, whatever the cell, in all threads."""
    _trials[backward] = plan
    try:
        yield
    finally:
        _trials.pop(backward, None)


def arch_here(device: torch.device) -> Arch | str:
    """Return the architecture to plan for, or a clause that says why there is none."""
    return ARCHS[INTERPRETED_ARCH] if interpreted() else arch_of(device)


def precision_of(dtype: torch.dtype) -> str:
    """Return the precision of float32 products, ``"tf32"`` or ``"ieee"``; for another dtype, ``"ieee"``.

    As for torch's own RNNs, `torch.backends.cudnn.rnn.fp32_precision` decides, which allows TF32 by default.
    """
    if dtype is not torch.float32:
        return "ieee"
    return "ieee" if torch.backends.cudnn.rnn.fp32_precision == "ieee" else "tf32"  # type: ignore[attr-defined]


def demand_of(cell: Cell, U: int, N: int, dtype: torch.dtype, backward: bool) -> Demand:
    """Describe one pass over a cell's recurrence to the capacity rule."""
    generated = generate(cell)
    return Demand(
        gates=cell.gates,
        states=len(cell.states),
        params=len(cell.params),
        masks=len(cell.masks),
        reduces_rows=generated.reduces_rows,
        additive=generated.additive,
        units=U,
        heads=N,
        dtype=dtype,
        precision=precision_of(dtype),
        backward=backward,
    )


def find_plan(cell: Cell, U: int, N: int, dtype: torch.dtype, device: torch.device, backward: bool) -> Plan | str:
    """Return the plan of one pass, or a clause that says why no schedule can run it."""
    if backward in _trials:
        return _trials[backward]
    arch = arch_here(device)
    if isinstance(arch, str):
        return arch
    schedule = _schedules[-1][0] if _schedules else None
    return find_plan_on(arch, device, cell, demand_of(cell, U, N, dtype, backward), schedule)


def find_plan_on(
    arch: Arch, device: torch.device | None, cell: Cell, demand: Demand, schedule: str | None
) -> Plan | str:
    """Return the plan of one pass on such a GPU, or a clause that says why no schedule can run it.

    The plan is the one measured on `device`, if there is one and `schedule` allows its schedule. Otherwise it is the
    capacity rule's.
    """
    plan = choose(demand, arch, schedule)
    if isinstance(plan, Refusal):
        return plan.why
    if device is None or not is_consulted():
        return plan
    tuned = tuned_plan(generate(cell).digest, demand, arch, device)
    return plan if tuned is None or schedule not in (None, tuned.schedule) else tuned


def why_no_plan(cell: Cell, U: int, N: int, dtype: torch.dtype, device: torch.device, backward: bool) -> str | None:
    """Return a clause that says why no schedule can run one pass, or None."""
    plan = find_plan(cell, U, N, dtype, device, backward)
    return plan if isinstance(plan, str) else None


def plan_for(cell: Cell, U: int, N: int, dtype: torch.dtype, device: torch.device, backward: bool) -> Plan:
    """Return the plan of one pass.

    Raises:
        BackendError: no schedule can run it; the message says why.
    """
    plan = find_plan(cell, U, N, dtype, device, backward)
    if isinstance(plan, str):
        raise BackendError(f"no kernel can run this recurrence: {plan}")
    return plan
