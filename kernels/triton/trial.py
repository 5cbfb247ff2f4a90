"""Solves a small random problem by kernels and by the cell's own steps, for `agreement` to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.kernels.triton.layout import unpack_columns
from seqnets.kernels.triton.operator import recurrence
from seqnets.recurrence import arithmetic_dtype


class Variant(NamedTuple):
    """Describes what kernels are compiled for, as far as two calls of one layer can differ in it. Plain values only."""

    cell: str  # its `Cell.key`
    N: int
    U: int
    D: int
    ragged: bool
    per_step: tuple[bool, ...]
    dtype: torch.dtype
    bias: bool
    differentiated: bool
    keep_r: bool  # whether the recurrent projections are kept for backward
    all_states: bool  # whether all states are returned and may be differentiated


class Problem(NamedTuple):
    """Holds the arguments of the recurrence operator, and the cotangents of its states, of which the first is y."""

    x: Tensor
    state: list[Tensor]
    weight: Tensor
    bias: Tensor | None
    params: list[Tensor]
    masks: list[Tensor]
    lengths: Tensor | None
    d_states: list[Tensor]  # (T, B, D, N, U) each
    d_finals: list[Tensor]  # (D, B, N, U) each

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self[:7]


class Values(NamedTuple):
    """Holds what a recurrence computes."""

    states: list[Tensor]  # (T, B, D, N, U) each, the first zero beyond the lengths; maybe only the first
    finals: list[Tensor]  # (D, B, N, U) each
    r: Tensor | None  # (T, B, D, N, Q)


def random_problem(cell: Cell, variant: Variant, steps: int, batch: int, positive: bool) -> Problem:
    """Sample a random problem on the CPU, rounded to the variant's dtype.

    It has its own generator, so the user's random numbers do not change.

    Args:
        cell: the cell of the problem.
        variant: the variant whose arguments it has.
        steps: T.
        batch: B.
        positive: whether all numbers are to be positive.
    """
    generator = torch.Generator().manual_seed(0)
    _, N, U, D, ragged, per_step, dtype, bias, *_ = variant
    Q = cell.gates * U

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        drawn = (torch.randn(shape, generator=generator) * scale).to(dtype)
        return drawn.abs() if positive else drawn

    lengths = torch.randint(0, steps + 1, (batch,), generator=generator)
    return Problem(
        x=normal(steps, batch, D, N, Q),
        state=[normal(D, batch, N, U).abs() for _ in cell.states],  # some are never negative, such as normalizers
        weight=normal(D, N, U, Q, scale=U**-0.5),
        bias=normal(D, N, Q) if bias else None,
        params=[normal(D, N, U) for _ in cell.params],
        masks=[
            (torch.rand(D, steps if per else 1, batch, N, U, generator=generator) < 0.7).to(dtype) for per in per_step
        ],
        lengths=lengths if ragged else None,
        d_states=[normal(steps, batch, D, N, U) for _ in cell.states],
        d_finals=[normal(D, batch, N, U) for _ in cell.states],
    )  # fmt: skip


def place(problem: Problem, variant: Variant, device: torch.device, dtype: torch.dtype) -> Problem:
    def place(value: Any) -> Any:
        if isinstance(value, list):
            return [place(v) for v in value]
        if value is None or not value.is_floating_point():
            return None if value is None else value.to(device)
        return value.to(device, dtype, copy=True).requires_grad_(variant.differentiated)  # a leaf of its own

    placed = Problem(*map(place, problem))
    return placed._replace(masks=[mask.detach() for mask in placed.masks])  # kernels give them no gradients


def run_kernels(cell: Cell, given: Problem, keep_states: bool, keep_r: bool) -> Values:
    found = recurrence(*given.arguments, cell=cell.key, keep_states=keep_states, keep_r=keep_r)
    S = len(cell.states)
    states = found[: S if keep_states else 1]
    return Values(states, found[len(states) : len(states) + S], found[-1] if keep_r else None)


def recompute(given: Problem, kept: Values) -> Tensor:
    from seqnets.kernels.triton import launch  # needs Triton

    with torch.no_grad():
        return launch.recompute(launch.prepare(*given.arguments), kept.states[0])


def follow(cell: Cell, given: Problem, kept: Values, tf32: bool, nudge: float = 0.0) -> Values:
    """Run the cell's own steps, each from the states that the kernels had reached.

    Gradients flow as if the steps had reached these states by themselves. Products are computed in the dtype of the
    problem and steps, as in the kernels, in float32 at least.

    Args:
        cell: the cell whose step is run.
        given: the problem.
        kept: what the kernels computed, with all states and r.
        tf32: whether the factors of products are truncated to TF32.
        nudge: the relative amount by which the states that the kernels reached are enlarged.
    """
    T, B, D = given.x.shape[:3]
    stored = given.x.dtype
    computed = arithmetic_dtype(stored)
    weight = _truncate(given.weight) if tf32 else given.weight
    rs: list[list[Tensor]] = [[] for _ in range(D)]
    every: list[list[Sequence[Tensor]]] = [[] for _ in range(D)]
    finals: list[Sequence[Tensor]] = []
    for d in range(D):
        last = [s[d] for s in given.state]
        state = [s.to(computed) for s in last]
        params = [p[d].flatten().to(computed) for p in given.params]
        for t in reversed(range(T)) if d else range(T):
            h = state[0].to(stored)
            r = torch.einsum("bnu,nuq->bnq", _truncate(h) if tf32 else h, weight[d])
            r = r if given.bias is None else r + given.bias[d]
            masks = [mask[d, t if mask.shape[1] > 1 else 0].flatten(1).to(computed) for mask in given.masks]
            assert kept.r is not None
            x_gates, r_gates = (
                unpack_columns(gates.to(computed), cell.gates).chunk(cell.gates, -1)
                for gates in (given.x[t, :, d], _at(kept.r[t, :, d], r))
            )
            new = cell(x_gates, r_gates, [s.flatten(1) for s in state], params, masks)
            new = [n.unflatten(-1, h.shape[1:]) for n in new]
            runs = torch.ones(B, 1, 1, dtype=torch.bool, device=r.device)
            if given.lengths is not None:
                runs = (t < given.lengths)[:, None, None]
            rs[d].append(r)
            every[d].append([torch.where(runs, n, 0.0).to(stored) for n in new])
            last = [torch.where(runs, n.to(stored), s) for n, s in zip(new, last, strict=True)]
            reached = [_at(k[t, :, d], n) * (1 + nudge) for k, n in zip(kept.states, new, strict=True)]
            state = [torch.where(runs, n, s) for n, s in zip(reached, state, strict=True)]
        if d:
            rs[d].reverse()
            every[d].reverse()
        finals.append(last)
    states = [
        torch.stack([torch.stack([step[k] for step in steps]) for steps in every], 2) for k in range(len(cell.states))
    ]
    return Values(
        states,
        [torch.stack(ends) for ends in zip(*finals, strict=True)],
        torch.stack([torch.stack(r) for r in rs], 2),
    )


def _at(known: Tensor, value: Tensor) -> Tensor:
    """Return `known`, with the gradient of `value`."""
    return known.to(value.dtype).detach() + (value - value.detach())


def _truncate(tensor: Tensor) -> Tensor:
    """Return float32 values as tensor cores read them for a product in TF32: without the last 13 bits."""
    return _at((tensor.detach().contiguous().view(torch.int32) & -(1 << 13)).view(torch.float32), tensor)


def outputs(cell: Cell, variant: Variant, given: Problem, values: Values) -> dict[str, Tensor]:
    """Return what the variant returns, by name, on the CPU; y is first."""
    found = dict(zip(["y", *cell.states[1:]], _returned(variant, given, values), strict=False))
    found |= {f"final {name}": f for name, f in zip(cell.states, values.finals, strict=True)}
    return _on_cpu(found)


def projections(given: Problem, *values: Values) -> dict[str, Tensor]:
    """Return the recurrent projections of all `values`, by name, on the CPU."""
    found = {f"r {k}".removesuffix(" 0"): _within(given, v.r) for k, v in enumerate(values) if v.r is not None}
    return _on_cpu(found)


def _returned(variant: Variant, given: Problem, values: Values) -> list[Tensor]:
    y, *others = values.states if variant.all_states else values.states[:1]
    return [y, *(_within(given, state) for state in others)]


def _within(given: Problem, every: Tensor) -> Tensor:
    """Return ``(T, B, D, N, ·)`` with zeros beyond the lengths.

    There, everything but the output may hold any value.
    """
    if given.lengths is None:
        return every
    steps = torch.arange(len(every), device=every.device)
    runs = steps[:, None] < given.lengths
    return torch.where(runs.reshape(*runs.shape, 1, 1, 1), every, 0.0)


def gradients(variant: Variant, given: Problem, values: Values) -> dict[str, Tensor]:
    """Return the gradients, by name, of all sums that backward kernels of the variant can be asked for, on the CPU."""
    returned = _returned(variant, given, values)
    found = _gradients(given, returned[:1], values.finals)
    if variant.all_states:  # another kernel
        more = _gradients(given, returned, values.finals)
        found |= {f"{name}, with those of all states": gradient for name, gradient in more.items()}
    return _on_cpu(found)


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in tensors.items()}


def _gradients(given: Problem, returned: Sequence[Tensor], finals: Sequence[Tensor]) -> dict[str, Tensor]:
    owners = {"x": [given.x], "weight": [given.weight], "bias": [] if given.bias is None else [given.bias]}
    owners |= {"initial state": given.state, "parameter": given.params}
    names = [
        f"gradient of {name} {k}".removesuffix(" 0") for name, tensors in owners.items() for k in range(len(tensors))
    ]
    inputs = [tensor for tensors in owners.values() for tensor in tensors]
    pairs = [*zip(returned, given.d_states, strict=False), *zip(finals, given.d_finals, strict=True)]
    tracked = [(value, d) for value, d in pairs if value.requires_grad]  # an output of the step can be a constant
    found = torch.autograd.grad(
        [v for v, _ in tracked], inputs, [d.detach() for _, d in tracked], True, allow_unused=True,
        materialize_grads=True,
    )  # fmt: skip
    return dict(zip(names, found, strict=True))
