"""One layer, all of its directions, by compiled kernels: large products before and after them, and what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.errors import BackendError
from seqnets.kernels.cpp.library import Library, arguments, library

ROWS = 64  # of a task at most
CACHE = 1 << 17  # bytes of projections that a task should have in its cache


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of all that is computed between products, and in them."""
    return torch.float64 if dtype is torch.float64 else torch.float32


class Inputs(NamedTuple):
    """Contiguous, of one dtype, on the CPU. Lists are by direction, of params and masks by direction and then by name.

    Shape legend: T time steps, B batch, I input size, D directions, H units in heads of K, G gates, S states.
    """

    x: Tensor  # (T, B, I)
    state: Sequence[Tensor]  # S × (D, B, H)
    weight_ih: Sequence[Tensor]  # D × (G·H, I)
    weight_hh: Sequence[Tensor]  # D × (G·H, K)
    bias_ih: Sequence[Tensor]  # D × (G·H,), or none
    bias_hh: Sequence[Tensor]
    params: Sequence[Tensor]  # (H,) each
    masks: Sequence[Tensor]  # (B, H) or (T, B, H) each
    lengths: Tensor | None  # (B,) int64


class Kept(NamedTuple):
    """What backward starts from."""

    states: list[Tensor]  # S × (T, B, D·H), of which the first is the output
    saved: Tensor  # (D, T, B, saved·H)
    columns: Tensor  # (D, T, B, columns), in the dtype of arithmetic


def prepare(inputs: Inputs) -> Inputs:
    """What lies otherwise is copied."""
    return Inputs(*(g.contiguous() if isinstance(g, Tensor) else g and [t.contiguous() for t in g] for g in inputs))


def run_forward(cell: Cell, inputs: Inputs, keep_states: bool, keep: bool) -> tuple[Kept, list[Tensor]]:
    """What is kept, of which the output always is, and the last states, S × (D, B, H)."""
    own = _library(cell, inputs.x.dtype)
    T, B, _ = inputs.x.shape
    S, D, H = len(inputs.state), len(inputs.weight_hh), inputs.state[0].shape[-1]
    arithmetic = arithmetic_dtype(inputs.x.dtype)
    states = [inputs.x.new_empty(T, B, D * H) for _ in range(S if keep_states else 1)]
    saved = inputs.x.new_empty((D, T, B, own.saved.per_unit * H) if keep else 0)
    columns = inputs.x.new_empty((D, T, B, own.saved.per_row) if keep else 0, dtype=arithmetic)
    finals = [torch.empty_like(s) for s in inputs.state]
    if not T or not B:
        return Kept(states, saved, columns), [f.copy_(s) for f, s in zip(finals, inputs.state, strict=True)]
    common = _common(inputs)
    packed = inputs.x.new_empty(D * own.forward_size(arguments(*common, None)), dtype=arithmetic)
    given: list[Any] = [*common, packed]
    gates = []
    for d in range(D):
        gates.append(_project(inputs, d))
        given += [
            d, gates[d], inputs.weight_hh[d], inputs.bias_hh[d] if inputs.bias_hh else None, *(s[d] for s in inputs.state),
            *_side(inputs, d), *_at(states, d, D, S), *[D * H] * S, saved[d] if keep else None, columns[d] if keep else None,
            *(f[d] for f in finals),
        ]  # fmt: skip
    own.forward(arguments(*given))
    return Kept(states, saved, columns), finals


def run_backward(
    cell: Cell, inputs: Inputs, kept: Kept, d_states: Sequence[Tensor | None], d_finals: Sequence[Tensor | None]
) -> list[Tensor]:
    """The gradients of x, state, weight_ih, weight_hh, bias_ih, bias_hh and params, in this order and by their order."""
    own = _library(cell, inputs.x.dtype)
    T, B, _ = inputs.x.shape
    S, D, P, H = len(inputs.state), len(inputs.weight_hh), len(cell.params), inputs.state[0].shape[-1]
    G = cell.gates
    arithmetic = arithmetic_dtype(inputs.x.dtype)
    d_states = [None if d is None else d.contiguous() for d in d_states]
    d_finals = [None if d is None else d.contiguous() for d in d_finals]
    d_initial = [torch.zeros_like(s) if d is None else d.clone() for s, d in zip(inputs.state, d_finals, strict=True)]
    d_x = [inputs.x.new_empty(T, B, G * H) for _ in range(D)]
    d_r = [inputs.x.new_empty(T, B, sum(own.differs) * H) for _ in range(D)]
    d_params = [inputs.x.new_zeros(B, H, dtype=arithmetic) for _ in range(P * D)]
    if T and B:
        common = _common(inputs)
        packed = inputs.x.new_empty(D * own.backward_size(arguments(*common, None)), dtype=arithmetic)
        given: list[Any] = [*common, packed]
        for d in range(D):
            given += [
                d, inputs.weight_hh[d], *(s[d] for s in inputs.state), *_side(inputs, d), *_at(kept.states, d, D, S), *[D * H] * S,
                kept.saved[d], kept.columns[d], *_at(d_states, d, D, S), *[D * H] * S,
                *(None if f is None else f[d] for f in d_finals), d_x[d], d_r[d], *(i[d] for i in d_initial),
                *d_params[d * P : (d + 1) * P],
            ]  # fmt: skip
        own.backward(arguments(*given))
    flat = [d.view(T * B, G * H) for d in d_x]
    rows = inputs.x.view(T * B, -1)
    d_input = flat[0] @ inputs.weight_ih[0]
    for d in range(1, D):
        d_input.addmm_(flat[d], inputs.weight_ih[d])
    sums = [f.sum(0) for f in flat] if inputs.bias_ih or inputs.bias_hh else []
    runs = [_runs(own.differs, d_x[d], d_r[d], H) for d in range(D)]
    return [
        d_input.view_as(inputs.x),
        *d_initial,
        *(f.t() @ rows for f in flat),
        *(torch.cat([_weight_gradient(inputs, kept.states[0], gates, d) for gates in runs[d]]) for d in range(D)),
        *(sums if inputs.bias_ih else []),
        *(_bias_gradient(own.differs, sums[d], d_r[d], H) for d in range(D if inputs.bias_hh else 0)),
        *(d.sum(0).to(inputs.x.dtype) for d in d_params),
    ]


def _library(cell: Cell, dtype: torch.dtype) -> Library:
    found = library(cell, dtype)
    if isinstance(found, str):
        raise BackendError(f"no kernel can run this recurrence: {found}")
    return found


def _project(inputs: Inputs, d: int) -> Tensor:
    bias = inputs.bias_ih[d] if inputs.bias_ih else None
    return torch.nn.functional.linear(inputs.x, inputs.weight_ih[d], bias)


def _common(inputs: Inputs) -> list[Any]:
    T, B, _ = inputs.x.shape
    D, H = len(inputs.weight_hh), inputs.state[0].shape[-1]
    threads = torch.get_num_threads()
    blocks = count_blocks(B, D, threads, inputs.weight_hh[0].shape[0] * (8 if inputs.x.dtype is torch.float64 else 4))
    order = None
    if inputs.lengths is not None:  # the longest first, dealt out to the tasks
        ranked = inputs.lengths.argsort(descending=True)
        order = torch.cat([ranked[block::blocks] for block in range(blocks)])
    return [T, B, H, H // inputs.weight_hh[0].shape[1], D, threads, blocks, order, inputs.lengths]


def count_blocks(B: int, D: int, threads: int, row_bytes: int) -> int:
    """Into how many tasks the rows of each direction are divided: small ones for the cache, and enough for all threads."""
    most = max(8, min(ROWS, CACHE // row_bytes))
    blocks = -(-B // most)
    while blocks < B and D * blocks % threads and D * blocks < 4 * threads:
        blocks += 1
    return min(blocks, B)


def _side(inputs: Inputs, d: int) -> list[Any]:
    D = len(inputs.weight_hh)
    P, M = len(inputs.params) // D, len(inputs.masks) // D
    masks = inputs.masks[d * M : (d + 1) * M]
    return [*inputs.params[d * P : (d + 1) * P], *masks, *(mask.dim() == 3 for mask in masks)]


def _at(tensors: Sequence[Tensor | None], d: int, D: int, count: int) -> list[int]:
    """Addresses of a direction's part of ``(T, B, D·H)`` each, 0 where there is none."""
    found = [0 if t is None else t.data_ptr() + d * (t.shape[-1] // D) * t.element_size() for t in tensors]
    return found + [0] * (count - len(found))


def _runs(differs: tuple[bool, ...], d_x: Tensor, d_r: Tensor, H: int) -> list[Tensor]:
    """The gradient of r, ``(T, B, ·)`` each: neighbouring gates of one origin together."""
    runs: list[Tensor] = []
    first = taken = 0
    for g in range(len(differs)):
        if g + 1 == len(differs) or differs[g + 1] != differs[g]:
            width = (g + 1 - first) * H
            runs.append(d_r[..., taken : taken + width] if differs[g] else d_x[..., first * H : (g + 1) * H])
            taken += width if differs[g] else 0
            first = g + 1
    return runs


def _weight_gradient(inputs: Inputs, y: Tensor, d_r: Tensor, d: int) -> Tensor:
    """``d_r_t^T h_{t-1}`` summed over all steps: that which meets the initial state, and the rest."""
    T, B, _ = d_r.shape
    H = inputs.state[0].shape[-1]
    h = y[..., d * H : (d + 1) * H]
    before, after = (h[1:], d_r[:-1]) if d else (h[:-1], d_r[1:])
    first = d_r[0]
    if d:
        last = torch.full((B,), T - 1) if inputs.lengths is None else (inputs.lengths - 1).clamp(0, T - 1)
        first = d_r[last, torch.arange(B)]
    heads = H // inputs.weight_hh[d].shape[1]
    if heads == 1:
        gradient = first.t() @ inputs.state[0][d]
        return gradient.addmm_(after.flatten(0, 1).t(), before.flatten(0, 1)) if T > 1 else gradient
    split = [t.flatten(0, -2).unflatten(-1, (-1, heads, H // heads)) for t in (first, after)]
    initial, rest = (t.flatten(0, -2).unflatten(-1, (heads, H // heads)) for t in (inputs.state[0][d], before))
    both = torch.einsum("bgnk,bnj->gnkj", split[0], initial) + torch.einsum("bgnk,bnj->gnkj", split[1], rest)
    return both.flatten(0, 2)


def _bias_gradient(differs: tuple[bool, ...], sums: Tensor, d_r: Tensor, H: int) -> Tensor:
    """That of `bias_ih`, but for the gates whose gradients of x and r differ."""
    if not any(differs):
        return sums.clone()
    found, other = sums.clone().view(-1, H), d_r.sum((0, 1)).view(-1, H)
    found[[g for g, differ in enumerate(differs) if differ]] = other
    return found.flatten()
