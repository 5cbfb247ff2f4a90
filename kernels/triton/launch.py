"""Turns tensors into launches: allocates what a pass needs, and runs its kernels in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqnets.cells import Cell
from seqnets.errors import BackendError
from seqnets.forking import Lock
from seqnets.kernels.availability import interpreted
from seqnets.kernels.triton.layout import first_steps, pack_widths, set_first_steps
from seqnets.kernels.triton.module import Generated, generate
from seqnets.kernels.triton.planning.plan import Plan
from seqnets.kernels.triton.planning.select import plan_for
from seqnets.kernels.triton.schedules import resident, tiled
from seqnets.kernels.triton.schedules.specialization import Specialization
from seqnets.recurrence import arithmetic_dtype


class Inputs(NamedTuple):
    """Holds the inputs of one layer's recurrence, all directions of it.

    They are contiguous, on one device and, except for the lengths, of one dtype.

    Shape legend: T time steps, B batch, D directions, N heads, U units per head, G gates, Q = G·U, packed (see
    `layout`).
    """

    x: Tensor  # (T, B, D, N, Q)
    state: tuple[Tensor, ...]  # (D, B, N, U) each
    weight: Tensor  # (D, N, U, Q)
    bias: Tensor | None  # (D, N, Q)
    params: tuple[Tensor, ...]  # (D, N, U) each
    masks: tuple[Tensor, ...]  # (D, T or 1, B, N, U) each
    lengths: Tensor | None  # (B,) int64


def prepare(
    x: Tensor,
    state: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    params: Sequence[Tensor],
    masks: Sequence[Tensor],
    lengths: Tensor | None,
) -> Inputs:
    """Return the inputs as the kernels address them: contiguous. Other tensors, such as expanded ones, are copied."""
    return Inputs(
        x.contiguous(),
        tuple(s.contiguous() for s in state),
        weight.contiguous(),
        None if bias is None else bias.contiguous(),
        tuple(p.contiguous() for p in params),
        tuple(m.contiguous() for m in masks),
        None if lengths is None else lengths.contiguous(),
    )


class Outputs(NamedTuple):
    # (T, B, D, N, U) each: the output, zero beyond the lengths, and the other states, None where they are not kept
    states: tuple[Tensor | None, ...]
    finals: tuple[Tensor, ...]  # (D, B, N, U) each
    r: Tensor | None  # (T, B, D, N, Q), None where it is not kept


class Gradients(NamedTuple):
    x: Tensor | None  # (T, B, D, N, Q); None where it equals that of r
    r: Tensor  # (T, B, D, N, Q)
    state: tuple[Tensor, ...]  # (D, B, N, U) each
    params: tuple[Tensor, ...]  # (D, B, N, U) each, in the dtype of arithmetic: per row of the batch


# Triton's interpreter keeps the program that runs, and the parts of Triton that it has replaced, per process: threads
# would mix up theirs
_one_at_a_time = Lock() if interpreted() else nullcontext()


class Launch(NamedTuple):
    """Holds one kernel with all its arguments, to be run or to be compiled ahead of time."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    options: dict[str, int]

    def run(self) -> None:
        with _one_at_a_time:
            self.kernel[self.grid](*self.arguments, **self.constants, **self.options)


def specialize(inputs: Inputs, plan: Plan) -> Specialization:
    D, N, U, Q = inputs.weight.shape
    widths = pack_widths(Q // U)
    return Specialization(
        G=Q // U,
        D=D,
        N=N,
        U=U,
        widths=widths,
        firsts=tuple(sum(widths[:p]) for p in range(len(widths))),
        per_step=tuple(mask.shape[1] > 1 for mask in inputs.masks),
        ragged=inputs.lengths is not None,
        carry=tl.float64 if inputs.x.dtype is torch.float64 else tl.float32,
        precision=plan.precision,
        BLOCK_B=plan.block_b,
        BLOCK_U=plan.block_u,
        BLOCK_K=plan.block_k,
        vector=max(1, 16 // (4 * inputs.x.itemsize)),
        interpreted=triton.knobs.runtime.interpret,
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
    """Yield the launches of a forward pass, which fill `outputs`.

    Each must be run before the next is taken, and all must be taken: the tiled schedule copies the final states last.
    """
    x, state, weight, bias, params, masks, lengths = inputs
    (T, B), (D, N, U, _) = x.shape[:2], weight.shape
    constants = {"STEP": cell.step, "spec": specialize(inputs, plan)}
    tiles = triton.cdiv(B, plan.block_b)
    arguments: tuple[Any, ...]
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
    """Yield the launches of a backward pass, which fill `gradients`; to be run as those of `forward`.

    A gradient in `d_states` may be None, where no gradient of that state comes in.
    """
    x, state, weight, _, params, masks, lengths = inputs
    (T, B), (D, N, U, _) = x.shape[:2], weight.shape
    constants = {"GRADIENT": cell.gradient, "spec": specialize(inputs, plan)}
    tiles = triton.cdiv(B, plan.block_b)
    arguments: tuple[Any, ...]
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
    # what a launch after the last would add
    carried[0].add_(torch.einsum("dbnq,dnuq->dbnu", first_steps(gradients.r, lengths), weight))
    for gradient, value in zip(gradients.state, carried, strict=True):
        gradient.copy_(value)


def run_forward(cell: Cell, inputs: Inputs, keep_states: bool, keep_r: bool) -> Outputs:
    """Run a whole forward pass: allocate its outputs, choose a plan and launch the kernels.

    Raises:
        BackendError: no kernel can run the recurrence, or a number that the step reads has changed since torch.compile
            asked whether the kernels can serve.
    """
    outdated = cell.why_outdated(generate(cell).numbers)
    if outdated is not None:
        raise BackendError(f"these kernels cannot run: {outdated}")
    outputs = allocate_outputs(inputs, keep_states, keep_r)
    if inputs.x.numel():
        generated = generate(cell)
        _launch(inputs.x, forward(generated, inputs, outputs, _plan(cell, inputs, backward=False)))
    else:
        for final, initial in zip(outputs.finals, inputs.state, strict=True):
            final.copy_(initial)
    return outputs


def run_backward(
    cell: Cell,
    inputs: Inputs,
    states: Sequence[Tensor],
    r: Tensor | None,
    d_states: Sequence[Tensor | None],
    d_finals: Sequence[Tensor | None],
) -> Gradients:
    """Run a whole backward pass, except for the gradients of weight and bias."""
    generated = generate(cell)
    gradients = allocate_gradients(generated, inputs)
    incoming = tuple(
        torch.zeros_like(s) if d is None else d.contiguous() for s, d in zip(inputs.state, d_finals, strict=True)
    )
    if not inputs.x.numel():
        for gradient, d in zip(gradients.state, incoming, strict=True):
            gradient.copy_(d)
        return gradients
    outputs = Outputs(tuple(states), (), recompute(inputs, states[0]) if r is None else r)
    # at most two kernels are compiled: for gradients of the output alone, or of all states
    wanted = [k == 0 or any(d is not None for d in d_states[1:]) for k in range(len(states))]
    every = tuple(
        (torch.zeros_like(s) if d is None else d.contiguous()) if want else None
        for s, d, want in zip(states, d_states, wanted, strict=True)
    )
    plan = _plan(cell, inputs, backward=True)
    _launch(inputs.x, backward(generated, inputs, outputs, every, incoming, gradients, plan))
    return gradients


def _plan(cell: Cell, inputs: Inputs, backward: bool) -> Plan:
    _, N, U, _ = inputs.weight.shape
    return plan_for(cell, U, N, inputs.x.dtype, inputs.x.device, backward)


def _launch(x: Tensor, launches: Iterable[Launch]) -> None:
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():  # Triton launches on the current device
        for launch in launches:
            launch.run()


def recompute(inputs: Inputs, h: Tensor) -> Tensor:
    """Recompute the recurrent projections ``(T, B, D, N, Q)`` of all steps from the outputs `h` ``(T, B, D, N, U)``.

    This takes one product per direction and head, and one for the first steps.
    """
    _, state, weight, bias, _, _, lengths = inputs
    r = torch.empty_like(inputs.x)
    D, N = weight.shape[:2]
    for d in range(D):
        before, after = (h[1:, :, 1], r[:-1, :, 1]) if d else (h[:-1, :, 0], r[1:, :, 0])
        for n in range(N):
            after[:, :, n] = before[:, :, n] @ weight[d, n]
    set_first_steps(r, torch.einsum("dbnu,dnuq->dbnq", state[0], weight), lengths)
    return r if bias is None else r.add_(bias)
