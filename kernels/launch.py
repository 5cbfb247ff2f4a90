"""From tensors to launches: what a pass allocates, and the kernels that it runs, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqnets.kernels.generation.module import Generated
from seqnets.kernels.layout import first_steps, pack_widths
from seqnets.kernels.planning.plan import Plan
from seqnets.kernels.schedules import resident, tiled
from seqnets.kernels.schedules.specialization import Specialization


class Inputs(NamedTuple):
    """One layer's recurrence, all directions of it. Contiguous, of one dtype, on one device.

    Shape legend: T time steps, B batch, D directions, N heads, U units per head, G gates, Q = G·U, packed (see `layout`).
    """

    x: Tensor  # (T, B, D, N, Q)
    state: tuple[Tensor, ...]  # (D, B, N, U) each
    weight: Tensor  # (D, N, U, Q)
    bias: Tensor | None  # (D, N, Q)
    params: tuple[Tensor, ...]  # (D, N, U) each
    masks: tuple[Tensor, ...]  # (D, T or 1, B, N, U) each
    lengths: Tensor | None  # (B,) int64


class Outputs(NamedTuple):
    states: tuple[
        Tensor | None, ...
    ]  # (T, B, D, N, U) each: the output, zero beyond the lengths, and those that are kept
    finals: tuple[Tensor, ...]  # (D, B, N, U) each
    r: Tensor | None  # (T, B, D, N, Q), where it is kept


class Gradients(NamedTuple):
    x: Tensor | None  # (T, B, D, N, Q); None where it is that of r
    r: Tensor  # (T, B, D, N, Q)
    state: tuple[Tensor, ...]  # (D, B, N, U) each
    params: tuple[Tensor, ...]  # (D, B, N, U) each, in the dtype of arithmetic: per row of the batch


class Launch(NamedTuple):
    """One kernel with all that it is given: to be run, or compiled ahead of time."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    options: dict[str, int]

    def run(self) -> None:
        self.kernel[self.grid](*self.arguments, **self.constants, **self.options)


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of carried states and of all that is computed between products."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def specialize(inputs: Inputs, plan: Plan) -> Specialization:
    D, N, U, Q = inputs.weight.shape
    return Specialization(
        G=Q // U,
        D=D,
        N=N,
        U=U,
        widths=pack_widths(Q // U),
        per_step=tuple(mask.shape[1] > 1 for mask in inputs.masks),
        ragged=inputs.lengths is not None,
        carry=tl.float64 if inputs.x.dtype is torch.float64 else tl.float32,
        precision=plan.precision,
        BLOCK_B=plan.block_b,
        BLOCK_U=plan.block_u,
        BLOCK_K=plan.block_k,
        vector=max(1, 16 // (4 * inputs.x.itemsize)),
    )


def allocate_outputs(inputs: Inputs, keep_states: bool, keep_r: bool) -> Outputs:
    T, B = inputs.x.shape[:2]
    D, N, U, _ = inputs.weight.shape
    kept = [inputs.x.new_empty(T, B, D, N, U) if keep_states or not k else None for k in range(len(inputs.state))]
    return Outputs(
        tuple(kept),
        tuple(torch.empty_like(state) for state in inputs.state),
        torch.empty_like(inputs.x) if keep_r else None,
    )


def allocate_gradients(cell: Generated, inputs: Inputs) -> Gradients:
    arithmetic = arithmetic_dtype(inputs.x.dtype)
    d_params = (inputs.state[0].new_zeros(inputs.state[0].shape, dtype=arithmetic) for _ in inputs.params)
    return Gradients(
        None if cell.additive else torch.empty_like(inputs.x),
        torch.empty_like(inputs.x),
        tuple(torch.empty_like(state) for state in inputs.state),
        tuple(d_params),
    )


def forward(cell: Generated, inputs: Inputs, outputs: Outputs, plan: Plan) -> Iterator[Launch]:
    """The launches of a forward pass, which fill `outputs`; to be run one by one, as they come."""
    x, state, weight, bias, params, masks, lengths = inputs
    (T, B), (D, N, U, _) = x.shape[:2], weight.shape
    constants = {"STEP": cell.step, "spec": specialize(inputs, plan)}
    tiles = triton.cdiv(B, plan.block_b)
    if plan.schedule == "resident":
        arguments = (x, weight, bias, state, params, masks, lengths, outputs.states, outputs.finals, outputs.r, T, B)
        yield Launch(resident.forward, (tiles, D * N), arguments, constants, plan.options)
        return
    grid = (tiles, triton.cdiv(U, plan.block_u), D * N)
    carried = tuple(s.to(arithmetic_dtype(x.dtype), copy=True) for s in state)
    h, spare = state[0], [torch.empty_like(state[0]) for _ in range(2)]
    for s in range(T):
        arguments = (
            x, h, weight, bias, carried, params, masks, lengths, outputs.states, spare[s % 2], outputs.r, s, T, B
        )  # fmt: skip
        yield Launch(tiled.forward, grid, arguments, constants, plan.options)
        h = spare[s % 2]
    for final, value in zip(outputs.finals, carried, strict=True):
        final.copy_(value)


def backward(
    cell: Generated,
    inputs: Inputs,
    outputs: Outputs,
    d_states: tuple[Tensor | None, ...],
    d_finals: tuple[Tensor, ...],
    gradients: Gradients,
    plan: Plan,
) -> Iterator[Launch]:
    """The launches of a backward pass, which fill `gradients`."""
    x, state, weight, _, params, masks, lengths = inputs
    (T, B), (D, N, U, _) = x.shape[:2], weight.shape
    constants = {"GRADIENT": cell.gradient, "spec": specialize(inputs, plan)}
    tiles = triton.cdiv(B, plan.block_b)
    if plan.schedule == "resident":
        arguments = (
            x, outputs.r, weight, state, params, masks, lengths, outputs.states, d_states, d_finals,
            gradients.x, gradients.r, gradients.state, gradients.params, T, B,
        )  # fmt: skip
        yield Launch(resident.backward, (tiles, D * N), arguments, constants, plan.options)
        return
    grid = (tiles, triton.cdiv(U, plan.block_u), D * N)
    carried = tuple(d.to(arithmetic_dtype(x.dtype), copy=True) for d in d_finals)
    for s in reversed(range(T)):
        arguments = (
            x, outputs.r, weight, state, params, masks, lengths, outputs.states, d_states,
            gradients.x, gradients.r, carried, gradients.params, s, T, B,
        )  # fmt: skip
        yield Launch(tiled.backward, grid, arguments, constants, plan.options)
    # what the launch after the last would add
    carried[0].add_(torch.einsum("dbnq,dnuq->dbnu", first_steps(gradients.r, lengths), weight))
    for gradient, value in zip(gradients.state, carried, strict=True):
        gradient.copy_(value)
