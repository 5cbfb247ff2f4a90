"""Defines the recurrence as PyTorch operators: what autograd, torch.compile and torch.export see of the kernels.

Importing this needs no Triton; running the operators does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seqnets.cells.registry import find_cell
from seqnets.kernels.autograd import gradients_by_step, needs_step
from seqnets.kernels.triton.layout import first_steps
from seqnets.kernels.triton.packed import run_packed


@torch.library.custom_op("seqnets::recurrence", mutates_args=())
def recurrence(
    x: Tensor,
    state: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    params: Sequence[Tensor],
    masks: Sequence[Tensor],
    lengths: Tensor | None,
    cell: str,
    keep_states: bool,
    keep_r: bool,
) -> list[Tensor]:
    """Run one layer's recurrence, all of its directions, by the generated forward kernels.

    Shape legend: T time steps, B batch, D directions, N heads, U units per head, G gates, Q = G·U, packed (see
    `layout`).

    Args:
        x: input projections ``(T, B, D, N, Q)``.
        state: initial states ``(D, B, N, U)`` each.
        weight: recurrent weight ``(D, N, U, Q)``.
        bias: recurrent bias ``(D, N, Q)``, or None.
        params: the cell's parameters, ``(D, N, U)`` each.
        masks: ``(D, T or 1, B, N, U)`` each.
        lengths: ``(B,)`` int64, on x's device, or None.
        cell: the key of the cell, `Cell.key`.
        keep_states: whether to return all states at every step, as backward needs them, or the output alone.
        keep_r: whether to return the recurrent projections too. Otherwise, backward computes them again for all steps
            at once.

    Returns:
        The output ``(T, B, D, N, U)``, zero at and beyond the lengths; with `keep_states`, the other states of the same
        shape, which may hold any value there; the final states ``(D, B, N, U)``; with `keep_r`, the recurrent
        projections, shaped like x.
    """
    from seqnets.kernels.triton import launch

    inputs = launch.prepare(x, state, weight, bias, params, masks, lengths)
    outputs = launch.run_forward(find_cell(cell), inputs, keep_states, keep_r)
    return [t for t in (*outputs.states, *outputs.finals, outputs.r) if t is not None]


@recurrence.register_fake
def _(x, state, weight, bias, params, masks, lengths, cell, keep_states, keep_r):
    T, B = x.shape[:2]
    D, N, U, _ = weight.shape
    kept = [x.new_empty(T, B, D, N, U) for _ in (state if keep_states else state[:1])]
    finals = [x.new_empty(D, B, N, U) for _ in state]
    return kept + finals + ([x.new_empty(x.shape)] if keep_r else [])


@torch.library.custom_op("seqnets::recurrence_backward", mutates_args=())
def recurrence_backward(
    x: Tensor,
    state: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    params: Sequence[Tensor],
    masks: Sequence[Tensor],
    lengths: Tensor | None,
    states: Sequence[Tensor],
    r: Tensor | None,
    d_states: Sequence[Tensor | None],
    d_finals: Sequence[Tensor | None],
    cell: str,
) -> list[Tensor]:
    """Return the gradients of x, the initial states, the weight, the bias (if any) and the params, in this order.

    The kernels do what is sequential. The gradients of weight and bias are a product and a sum over all steps. There
    are no atomic additions, so the same input gives the same bits.
    """
    from seqnets.kernels.triton import launch

    inputs = launch.prepare(x, state, weight, bias, params, masks, lengths)
    # hooks on saved tensors may have made them non-contiguous
    states, r = [s.contiguous() for s in states], None if r is None else r.contiguous()
    gradients = launch.run_backward(find_cell(cell), inputs, states, r, d_states, d_finals)
    d_r = gradients.r
    d_bias = [] if bias is None else [d_r.sum((0, 1))]
    d_params = [d.sum(1).to(x.dtype) for d in gradients.params]
    d_x = d_r if gradients.x is None else gradients.x
    return [d_x, *gradients.state, _weight_gradient(inputs, states[0], d_r), *d_bias, *d_params]


@recurrence_backward.register_fake
def _(x, state, weight, bias, params, masks, lengths, states, r, d_states, d_finals, cell):
    own = [weight] if bias is None else [weight, bias]
    return [t.new_empty(t.shape) for t in (x, *state, *own, *params)]


def _weight_gradient(inputs: Any, h: Tensor, d_r: Tensor) -> Tensor:
    """Return ``h_{t-1}^T d_r_t`` summed over all steps, ``(D, N, U, Q)``.

    It adds up each direction's first step, whose h is the initial state, and the other steps.
    """
    if not d_r.numel():
        return torch.zeros_like(inputs.weight)
    first = first_steps(d_r, inputs.lengths)
    gradient = torch.einsum("dbnu,dbnq->dnuq", inputs.state[0], first)
    for d in range(gradient.shape[0]):
        before, after = (h[1:, :, 1], d_r[:-1, :, 1]) if d else (h[:-1, :, 0], d_r[1:, :, 0])
        gradient[d] += torch.einsum("tbnu,tbnq->nuq", before, after)
    return gradient


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, state, weight, bias, params, masks, lengths, ctx.cell, ctx.keep_states, keep_r = inputs
    ctx.counts = len(state), len(params), len(masks)
    states = output[: len(state)] if ctx.keep_states else []
    ctx.save_for_backward(x, weight, bias, lengths, output[-1] if keep_r else None, *state, *params, *masks, *states)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    if not ctx.keep_states:
        raise RuntimeError(
            "seqnets::recurrence was run with keep_states=False, and so kept nothing for a backward pass"
        )
    x, weight, bias, lengths, r, *rest = ctx.saved_tensors
    S, P, M = ctx.counts
    state, params, masks, states = rest[:S], rest[S : S + P], rest[S + P : S + P + M], rest[S + P + M :]
    d_states, d_finals = grads[:S], grads[S : 2 * S]
    given = (x, state, weight, bias, params, masks, lengths)
    if needs_step(grads):
        from seqnets.kernels.triton.module import generate

        cell = find_cell(ctx.cell)

        def run(inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            x, *rest = inputs
            state, weight, rest = rest[:S], rest[S], rest[S + 1 :]
            own_bias = None if bias is None else rest.pop(0)
            return run_packed(cell, x, state, weight, own_bias, rest, masks, lengths)

        wanted = [t for t in (x, *state, weight, bias, *params) if t is not None]
        found = gradients_by_step(cell, generate(cell).numbers, run, wanted, [*d_states, *d_finals])
    else:
        found = list(recurrence_backward(*given, states, r, d_states, d_finals, ctx.cell))
    d_x, *d_state = found[: 1 + S]
    d_weight, *more = found[1 + S :]
    d_bias = None if bias is None else more.pop(0)
    return d_x, d_state, d_weight, d_bias, more, [None] * M, None, None, None, None


recurrence.register_autograd(_backward, setup_context=_setup_context)
