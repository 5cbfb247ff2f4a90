"""Defines the sequence operation that backends implement: a stack of recurrent layers over a batch of sequences.

Shape legend, used in names throughout: T time steps, B batch, I input size, H hidden size, P size of the first state
(H, or ``proj_size``), G gates, N heads, L layers, D directions (1 or 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from seqnets.cells import Cell
from seqnets.compilation import constant
from seqnets.conditions import PLAIN, why_own_rules


class Weights(NamedTuple):
    """Holds the weights, cell parameters and masks of one direction of one layer."""

    weight_ih: Tensor  # (G·H, I)
    weight_hh: Tensor  # (G·H, P), or (G·H, H/N) if the recurrence is block-diagonal with N heads
    bias_ih: Tensor | None = None  # (G·H,)
    bias_hh: Tensor | None = None  # (G·H,)
    weight_hr: Tensor | None = None  # (P, H), the projection of the first state after the step
    params: tuple[Tensor, ...] = ()  # (H,) each, in the order of cell.params
    masks: tuple[Tensor, ...] = ()  # (B, H), or (T, B, H) if sampled per step, in the order of cell.masks


def check_dense(tensor: Tensor, name: str = "input") -> None:
    """Reject sparse, opaque and nested tensors, because kernels read strided memory.

    Raises:
        TypeError: If the tensor is not dense. The message says what to pass instead.
    """
    if tensor.layout is not torch.strided or tensor.is_nested:
        kind = "nested" if tensor.is_nested else f"in the layout {tensor.layout}"
        raise TypeError(f"{name} must be a dense tensor, and is {kind}; pad sequences and pass lengths=")


def check_weight(name: str, weight: Tensor, shape: tuple[int, ...], like: Tensor, any_dtype: bool = False) -> None:
    """Reject a weight that does not fit, for example a replaced one: kernels rely on these shapes to read memory.

    Args:
        name: the name of the weight, for the error message.
        weight: the weight to check.
        shape: the shape that it must have.
        like: a tensor with the device and, unless autocast converts it, the dtype that the weight must have.
        any_dtype: whether to accept any dtype and leave the check to the backends.

    Raises:
        RuntimeError: If the layout, shape, device or dtype differs.
    """
    if weight.shape != shape:
        raise RuntimeError(f"{name} must have the shape {shape}, and has {tuple(weight.shape)}")
    if weight.device != like.device:
        raise RuntimeError(f"{name} is on {weight.device}, and the other weights are on {like.device}")
    if weight.dtype is not like.dtype and not any_dtype and not torch._C._is_any_autocast_enabled():
        raise RuntimeError(f"{name} has dtype {weight.dtype}, and the other weights have {like.dtype}")
    if type(weight) in PLAIN and weight.layout is not torch.strided:  # others may not tell their layout
        raise RuntimeError(f"{name} must be dense, and is in the layout {weight.layout}; replace it by its .to_dense()")


class Problem(NamedTuple):
    """Describes one call of the sequence operation, for all backends. Whoever builds it has checked the contents."""

    cell: Cell
    x: Tensor  # (T, B, I); entries at and beyond `lengths` are zero
    state: tuple[Tensor, ...]  # each (L·D, B, H), the first (L·D, B, P)
    layers: tuple[tuple[Weights, ...], ...]  # L × D
    lengths: Tensor | None = None  # (B,) int64, each in 0..T, on any device
    dropout: float = 0.0  # between layers; 0 in evaluation mode
    all_states: bool = False  # also return the last layer's states at every step
    recompute: bool = False  # recompute recurrent projections in the backward pass, do not keep them

    def tensors(self) -> list[Tensor]:
        """Return the input, the states, and all weights, cell parameters and masks of the layers."""
        found: list[Any] = [self.x, *self.state]
        for layer in self.layers:
            for own in layer:
                found += own[:5]
                found += own.params
                found += own.masks
        return [tensor for tensor in found if tensor is not None]


class Result(NamedTuple):
    y: Tensor  # (T, B, D·P), zero at and beyond `lengths`
    state: tuple[Tensor, ...]  # as in Problem, after the last step of each sequence
    # each (T, B, D·H), the first (T, B, D·P); a finished row keeps its state
    all_states: tuple[Tensor, ...] | None = None


class Direction(NamedTuple):
    """Describes one direction of one layer, for backends that run them one by one."""

    cell: Cell
    x: Tensor  # (T, B, I)
    state: tuple[Tensor, ...]  # (B, H) each, the first (B, P)
    weights: Weights
    active: Tensor | None  # (T, B, 1) bool: whether the row runs at the step; None if all always do
    reverse: bool


def active_steps(lengths: Tensor, steps: int, device: torch.device) -> Tensor:
    """Return a ``(T, B, 1)`` bool tensor that tells whether the time step lies within the row's length."""
    return (torch.arange(steps, device=device)[:, None] < lengths.to(device, non_blocking=True)).unsqueeze(-1)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return the dtype to which autocast casts products of `x`, or None if it leaves them alone, as for float64."""
    if not torch._C._is_any_autocast_enabled():
        return None
    device = x.device.type
    wanted = _has_autocast(device) and torch.is_autocast_enabled(device)
    eligible = x.is_floating_point() and x.dtype is not torch.float64
    return torch.get_autocast_dtype(device) if wanted and eligible else None


@constant  # Dynamo cannot trace it in torch 2.11
def _has_autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device)


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which kernels carry states and compute between products, whatever dtype they store."""
    return torch.promote_types(dtype, torch.float32)


def project_input(weights: Weights, x_TBI: Tensor) -> Tensor:
    """Compute the input projections of all time steps, ``(T, B, G·H)``, in one GEMM outside the time loop."""
    if why_own_rules((weights.weight_ih,)):  # PyTorch's per-sample gradients expect the batch first
        return F.linear(x_TBI.transpose(0, 1), weights.weight_ih, weights.bias_ih).transpose(0, 1)
    return F.linear(x_TBI, weights.weight_ih, weights.bias_ih)


def count_heads(h: Tensor, weight_hh: Tensor) -> int:
    """Return N, the number of heads that share the units of the first state ``(…, P)``; 1 for a dense recurrence."""
    return h.shape[-1] // weight_hh.shape[1]


def project_state(h_BP: Tensor, weight_hh: Tensor, bias_hh: Tensor | None = None) -> Tensor:
    """Compute the recurrent projections of all gates, ``(B, G·H)``.

    With N heads (as in xLSTM, Beck et al., arXiv:2405.04517, and FlashRNN, Pöppel et al., arXiv:2412.07752) each head
    owns K = H/N units and sees only those. Row ``g·H + n·K + j`` of ``weight_hh (G·H, K)`` belongs to gate g, head n
    and unit j, and multiplies ``h[:, n·K:(n+1)·K]``.
    """
    heads, K = count_heads(h_BP, weight_hh), weight_hh.shape[1]
    if heads == 1:
        return F.linear(h_BP, weight_hh, bias_hh)
    weight_GNKK = weight_hh.unflatten(0, (-1, heads, K))
    h_NBK = h_BP.unflatten(1, (heads, K)).transpose(0, 1)
    r_GNBK = h_NBK @ weight_GNKK.mT  # gates are a batch dimension too, which avoids a copy of the weight
    r = r_GNBK.permute(2, 0, 1, 3).flatten(1)
    return r if bias_hh is None else r + bias_hh


def layer_by_layer(problem: Problem, run_direction: Callable[[Direction], Sequence[Tensor]]) -> Result:
    """Solve a problem layer by layer.

    Args:
        problem: the problem to solve.
        run_direction: runs one direction of one layer, and returns its states at every step, ``(T, B, H)`` each. It is
            not called if T is 0.
    """
    cell, x, directions = problem.cell, problem.x, len(problem.layers[0])
    steps = x.shape[0]
    active = None if problem.lengths is None else active_steps(problem.lengths, steps, x.device)
    finals: list[tuple[Tensor, ...]] = []
    for number, layer in enumerate(problem.layers):
        if number and problem.dropout:
            x = F.dropout(x, problem.dropout)
        every: list[Sequence[Tensor]] = []
        for d, weights in enumerate(layer):
            initial = tuple(s[number * directions + d] for s in problem.state)
            states = (
                run_direction(Direction(cell, x, initial, weights, active, reverse=d == 1))
                if steps
                else [s.new_empty(0, *s.shape) for s in initial]
            )
            every.append(states)
            last = 0 if d == 1 else -1
            finals.append(tuple(s[last] for s in states) if steps else initial)
        all_states = tuple(torch.cat(pair, dim=-1) if directions == 2 else pair[0] for pair in zip(*every, strict=True))
        x = all_states[0] if active is None else torch.where(active, all_states[0], 0.0)
    return Result(
        x,
        tuple(torch.stack(rows) for rows in zip(*finals, strict=True)),
        all_states if problem.all_states else None,
    )
