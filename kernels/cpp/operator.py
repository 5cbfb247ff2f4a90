"""Defines a CPU layer as PyTorch operators, so that autograd, torch.compile and torch.export can use the kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from seqnets.cells.registry import find_cell
from seqnets.conditions import PLAIN
from seqnets.kernels.autograd import gradients_by_step, needs_step
from seqnets.recurrence import Weights, active_steps, arithmetic_dtype, project_input
from seqnets.scan import scan


@torch.library.custom_op("seqnets::layer", mutates_args=())
def layer(
    x: Tensor,
    state: Sequence[Tensor],
    weight_ih: Sequence[Tensor],
    weight_hh: Sequence[Tensor],
    bias_ih: Sequence[Tensor],
    bias_hh: Sequence[Tensor],
    params: Sequence[Tensor],
    masks: Sequence[Tensor],
    lengths: Tensor | None,
    cell: str,
    keep_states: bool,
    keep: bool,
) -> list[Tensor]:
    """Run one layer in all of its directions.

    Args:
        x: ``(T, B, I)``, on the CPU.
        state: Initial states, S × ``(D, B, H)``.
        weight_ih, weight_hh, bias_ih, bias_hh: D each, as in torch.nn. Biases: D each, or none.
        params, masks: Those of the cell for each direction. Parameters are ``(H,)``; masks ``(B, H)`` or ``(T, B, H)``.
        lengths: ``(B,)`` int64, or None if all sequences have length T.
        cell: The `Cell.key`.
        keep_states: Return all states of every step, as backward needs them, instead of the output alone.
        keep: Return what else backward needs.

    Returns:
        One list: the output ``(T, B, D·H)``, zero at and beyond the lengths; the last states ``(D, B, H)``; with
        `keep_states` the other states of every step, shaped as the output and zero where it is; with `keep` what the
        step saved, as two tensors.
    """
    from seqnets.kernels.cpp import launch

    found = find_cell(cell)
    inputs = launch.prepare(x, state, weight_ih, weight_hh, bias_ih, bias_hh, params, masks, lengths=lengths)
    kept, finals = launch.run_forward(found, inputs, keep_states, keep)
    y, *others = kept.states
    return [y, *finals, *others, *([kept.saved, kept.columns] if keep else [])]


@layer.register_fake
def _(x, state, weight_ih, weight_hh, bias_ih, bias_hh, params, masks, lengths, cell, keep_states, keep):
    from seqnets.kernels.cpp.printed import printed

    (T, B, _), (D, _, H) = x.shape, state[0].shape
    every = [x.new_empty(T, B, D * H) for _ in (state if keep_states else state[:1])]
    found = [every[0], *(s.new_empty(s.shape) for s in state), *every[1:]]
    if keep:
        saves = printed(find_cell(cell))
        found.append(x.new_empty(D, T, B, saves.saved_per_unit * H))
        found.append(x.new_empty(D, T, B, saves.saved_per_row, dtype=arithmetic_dtype(x.dtype)))
    return found


@torch.library.custom_op("seqnets::layer_backward", mutates_args=())
def layer_backward(
    x: Tensor,
    state: Sequence[Tensor],
    weight_ih: Sequence[Tensor],
    weight_hh: Sequence[Tensor],
    bias_ih: Sequence[Tensor],
    bias_hh: Sequence[Tensor],
    params: Sequence[Tensor],
    masks: Sequence[Tensor],
    lengths: Tensor | None,
    states: Sequence[Tensor],
    saved: Tensor,
    columns: Tensor,
    d_states: Sequence[Tensor | None],
    d_finals: Sequence[Tensor | None],
    cell: str,
    want_input: bool,
) -> list[Tensor]:
    """Run the backward pass of `layer`.

    Args:
        x, state, weight_ih, weight_hh, bias_ih, bias_hh, params, masks, lengths, cell: The inputs of `layer`.
        states: All states of every step, S × ``(T, B, D·H)``.
        saved, columns: What the step saved.
        d_states: Gradients of `states`, or None each.
        d_finals: Gradients of the last states, or None each.
        want_input: Compute the gradient of x.

    Returns:
        The gradients of x (empty if not wanted), state, weight_ih, weight_hh, bias_ih, bias_hh and params, as one list.
        Within each group they have the order of the inputs.
    """
    from seqnets.kernels.cpp import launch

    inputs = launch.prepare(x, state, weight_ih, weight_hh, bias_ih, bias_hh, params, masks, lengths=lengths)
    kept = launch.Kept(
        [launch.rows(s) for s in states], saved.contiguous(), columns.contiguous()
    )  # hooks may change them
    return launch.run_backward(find_cell(cell), inputs, kept, d_states, d_finals, want_input)


@layer_backward.register_fake
def _(
    x, state, weight_ih, weight_hh, bias_ih, bias_hh, params, masks, lengths, states, saved, columns, d_states,
    d_finals, cell, want_input,
):  # fmt: skip
    d_x = x.new_empty(x.shape if want_input else 0)
    return [d_x, *(t.new_empty(t.shape) for t in (*state, *weight_ih, *weight_hh, *bias_ih, *bias_hh, *params))]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *groups, lengths, ctx.cell, keep_states, keep = inputs
    if not (keep_states and keep):
        return
    x, lists = groups[0], groups[1:]
    ctx.sizes = [len(tensors) for tensors in lists]
    y, others = output[0], output[1 + ctx.sizes[0] :]
    ctx.save_for_backward(x, lengths, *(t for tensors in lists for t in tensors), y, *others)
    ctx.set_materialize_grads(False)
    ctx.wants_input = ctx.needs_input_grad[0]


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    if not hasattr(ctx, "sizes"):
        raise RuntimeError(
            "seqnets::layer was run without keep and keep_states, and so kept nothing for a backward pass"
        )
    d_x, *found = _gradients(ctx, grads, layer_backward)
    return d_x, *grouped(found, ctx.sizes), None, None, None, None


def _gradients(ctx: Any, grads: Sequence[Tensor | None], run: Callable[..., list[Tensor]]) -> list[Tensor | None]:
    """Return the gradients of x and of all lists as one flat list, with None for x if not wanted and for masks."""
    found: Sequence[Tensor | None]
    x, lengths, *rest = ctx.saved_tensors
    lists, rest = grouped(rest, ctx.sizes), rest[sum(ctx.sizes) :]
    S = ctx.sizes[0]
    d_states, d_finals = [grads[0], *grads[1 + S : 2 * S]], grads[1 : 1 + S]
    given = (x, *lists, lengths)
    if needs_step(grads):
        from seqnets.kernels.cpp.library import loaded

        cell, *differentiable, masks = find_cell(ctx.cell), *lists
        wanted = [x, *(t for tensors in differentiable for t in tensors)]

        def by_steps(inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            state, weight_ih, weight_hh, bias_ih, bias_hh, params = grouped(inputs[1:], ctx.sizes[:-1])
            return run_steps(cell, inputs[0], state, weight_ih, weight_hh, bias_ih, bias_hh, params, masks, lengths)

        d_x, *found = gradients_by_step(cell, loaded(cell, x.dtype).numbers, by_steps, wanted, [*d_states, *d_finals])
    else:
        *states, saved, columns = rest
        d_x, *found = run(*given, states, saved, columns, d_states, d_finals, ctx.cell, ctx.wants_input)
    return [d_x if ctx.wants_input else None, *found, *(None for _ in lists[-1])]  # masks have no gradients


def grouped(tensors: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    """Split a sequence into lists of these sizes, without the elements beyond them."""
    lists, start = [], 0
    for size in sizes:
        lists.append(tensors[start : start + size])
        start += size
    return lists


class _Eager(torch.autograd.Function):
    """Runs the operators without the dispatcher, which takes longer than a short sequence does."""

    @staticmethod
    def forward(ctx: Any, cell: str, sizes: list[int], lengths: Tensor | None, x: Tensor, *tensors: Tensor) -> Any:
        found = layer._init_fn(x, *grouped(tensors, sizes), lengths, cell, True, True)
        ctx.cell, ctx.sizes = cell, sizes
        ctx.save_for_backward(x, lengths, *tensors, found[0], *found[1 + sizes[0] :])
        ctx.set_materialize_grads(False)
        ctx.wants_input = ctx.needs_input_grad[3]
        return tuple(found[:-2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        run = layer_backward._init_fn if all(type(d) in PLAIN for d in grads if d is not None) else layer_backward
        return None, None, None, *_gradients(ctx, grads, run)


def run_layer(x: Tensor, *arguments: Any) -> Sequence[Tensor]:
    """Run `layer` without the dispatcher, unless tracing, a dispatch mode or a tensor subclass needs it."""
    *lists, lengths, cell, _, keep = arguments
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return layer(x, *arguments)
    tensors = [x, *chain.from_iterable(lists)]
    if not PLAIN.issuperset(map(type, tensors)):
        return layer(x, *arguments)
    if not keep:
        return layer._init_fn(x, *arguments)
    return _Eager.apply(cell, list(map(len, lists)), lengths, *tensors)


def run_steps(
    cell: Any, x: Tensor, state: list[Tensor], weight_ih: list[Tensor], weight_hh: list[Tensor], bias_ih: list[Tensor],
    bias_hh: list[Tensor], params: list[Tensor], masks: list[Tensor], lengths: Tensor | None,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """Run one layer with the cell's own step instead of kernels.

    Returns:
        The states of every step, S × ``(T, B, D·H)``, and the last states, S × ``(D, B, H)``. Of the former, the first
        is zero at and beyond the lengths.
    """
    D = len(weight_hh)
    P, M = len(params) // D, len(masks) // D
    active = None if lengths is None else active_steps(lengths, x.shape[0], x.device)
    every, finals = [], []
    if not x.shape[0]:
        return [x.new_empty(0, x.shape[1], D * s.shape[-1]) for s in state], list(state)
    for d in range(D):
        own = Weights(
            weight_ih[d], weight_hh[d], bias_ih[d] if bias_ih else None, bias_hh[d] if bias_hh else None, None,
            tuple(params[d * P : (d + 1) * P]), tuple(masks[d * M : (d + 1) * M]),
        )  # fmt: skip
        states = scan(cell, project_input(own, x), [s[d] for s in state], own, active, reverse=d == 1)
        finals.append([s[0 if d else -1] for s in states])
        every.append([s if k or active is None else torch.where(active, s, 0.0) for k, s in enumerate(states)])
    return (
        [torch.cat(directions, dim=-1) for directions in zip(*every, strict=True)],
        [torch.stack(directions) for directions in zip(*finals, strict=True)],
    )


layer.register_autograd(_backward, setup_context=_setup_context)
