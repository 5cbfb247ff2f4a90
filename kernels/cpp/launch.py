"""One layer, all of its directions, by compiled kernels: large products before and after them, and what they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.errors import BackendError
from seqnets.kernels.cpp.library import Library, arguments, library
from seqnets.kernels.cpp.memory import pool
from seqnets.recurrence import arithmetic_dtype

ROWS = 64  # of a task at most
CACHE = 1 << 17  # bytes of projections that a task should have in its cache


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

    def lying_well(given: Any) -> Any:
        if given is None or isinstance(given, Tensor):
            return None if given is None else given.contiguous()
        return [tensor.contiguous() for tensor in given]

    return Inputs._make(map(lying_well, inputs))


def run_forward(cell: Cell, inputs: Inputs, keep_states: bool, keep: bool) -> tuple[Kept, list[Tensor]]:
    """What is kept, of which the output always is, and the last states, S × (D, B, H)."""
    own = _library(cell, inputs.x.dtype)
    T, B, _ = inputs.x.shape
    S, D, H = len(inputs.state), len(inputs.weight_hh), inputs.state[0].shape[-1]
    arithmetic = arithmetic_dtype(inputs.x.dtype)
    dtype = inputs.x.dtype
    states = [pool.empty((T, B, D * H), dtype) for _ in range(S if keep_states else 1)]
    saved = pool.empty((D, T, B, own.saved.per_unit * H) if keep else (0,), dtype)
    columns = pool.empty((D, T, B, own.saved.per_row) if keep else (0,), arithmetic)
    finals = [torch.empty_like(s) for s in inputs.state]
    if not T or not B:
        return Kept(states, saved, columns), [f.copy_(s) for f, s in zip(finals, inputs.state, strict=True)]
    given = _common(inputs)
    gates = []
    for d in range(D):
        gates.append(_project(own, inputs, d))
        given += [
            d, gates[d], inputs.bias_ih[d] if inputs.bias_ih else None, inputs.weight_hh[d], inputs.bias_hh[d] if inputs.bias_hh else None, *(s[d] for s in inputs.state),
            *_side(inputs, d), *_at(states, d, D, S), *[D * H] * S, saved[d] if keep else None, columns[d] if keep else None,
            *(f[d] for f in finals),
        ]  # fmt: skip
    own.call.forward(arguments(*given))
    return Kept(states, saved, columns), finals


def run_backward(
    cell: Cell,
    inputs: Inputs,
    kept: Kept,
    d_states: Sequence[Tensor | None],
    d_finals: Sequence[Tensor | None],
    want_input: bool = True,
) -> list[Tensor]:
    """The gradients of x (if wanted, else empty), state, weight_ih, weight_hh, bias_ih, bias_hh and params, in this order and by their order."""
    own = _library(cell, inputs.x.dtype)
    T, B, _ = inputs.x.shape
    S, D, P, H = len(inputs.state), len(inputs.weight_hh), len(cell.params), inputs.state[0].shape[-1]
    G = cell.gates
    arithmetic = arithmetic_dtype(inputs.x.dtype)
    d_states = [None if d is None else d.contiguous() for d in d_states]
    d_finals = [None if d is None else d.contiguous() for d in d_finals]
    d_initial = [torch.zeros_like(s) if d is None else d.clone() for s, d in zip(inputs.state, d_finals, strict=True)]
    dtype = inputs.x.dtype
    d_x = [pool.empty((T, B, G * H), dtype) for _ in range(D)]
    d_r = [pool.empty((T, B, sum(own.differs) * H), dtype) for _ in range(D)]
    d_params = [inputs.x.new_zeros(B, H, dtype=arithmetic) for _ in range(P * D)]
    if T and B:
        given = _common(inputs)
        for d in range(D):
            given += [
                d, inputs.weight_hh[d], *(s[d] for s in inputs.state), *_side(inputs, d), *_at(kept.states, d, D, S), *[D * H] * S,
                kept.saved[d], kept.columns[d], *_at(d_states, d, D, S), *[D * H] * S,
                *(None if f is None else f[d] for f in d_finals), d_x[d], d_r[d], *(i[d] for i in d_initial),
                *d_params[d * P : (d + 1) * P],
            ]  # fmt: skip
        own.call.backward(arguments(*given))
    d_input = _project_back(own, inputs, d_x) if want_input else inputs.x.new_empty(0)
    x = inputs.x.view(T * B, inputs.x.shape[-1])
    found = [_outer(own, d.view(T * B, G * H), x) for d in d_x]
    bias_ih = [totals for _, totals in found]
    recurrent = [_recurrent_gradients(own, inputs, kept.states[0], d_x[d], d_r[d], bias_ih[d], d) for d in range(D)]
    return [
        d_input,
        *d_initial,
        *(weight for weight, _ in found),
        *(weight for weight, _ in recurrent),
        *(bias_ih if inputs.bias_ih else []),
        *((bias for _, bias in recurrent) if inputs.bias_hh else []),
        *(_sum(own, d, dtype) for d in d_params),
    ]


def _library(cell: Cell, dtype: torch.dtype) -> Library:
    found = library(cell, dtype)
    if isinstance(found, str):
        raise BackendError(f"no kernel can run this recurrence: {found}")
    return found


def _project(own: Library, inputs: Inputs, d: int) -> Tensor:
    """Without the bias, which the kernel adds as it reads."""
    (T, B, I), outputs = inputs.x.shape, inputs.weight_ih[d].shape[0]
    out = pool.empty((T, B, outputs), inputs.x.dtype)
    own.call.project(arguments(inputs.x, inputs.weight_ih[d], out, T * B, I, outputs, torch.get_num_threads()))
    return out


def _project_back(own: Library, inputs: Inputs, d_x: list[Tensor]) -> Tensor:
    (T, B, I), outputs = inputs.x.shape, d_x[0].shape[-1]
    if not T * B:
        return torch.zeros_like(inputs.x)
    out = pool.empty((T, B, I), inputs.x.dtype)
    for d, gradient in enumerate(d_x):
        own.call.project_back(
            arguments(gradient, inputs.weight_ih[d], out, T * B, outputs, I, torch.get_num_threads(), int(d > 0))
        )
    return out


def _outer(own: Library, a: Tensor, b: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``a^T b`` of ``(depth, rows)`` and ``(depth, columns)``, added to `out` where there is one; and the sums of a's columns."""
    depth, rows, columns = *a.shape, b.shape[1]
    into, totals = a.new_zeros(rows, columns) if out is None else out, a.new_zeros(rows)
    if depth and rows and columns:
        threads, add = torch.get_num_threads(), int(out is not None)
        own.call.outer(arguments(a, a.stride(0), b, b.stride(0), depth, rows, columns, into, totals, threads, add))
    return into, totals


def _sum(own: Library, a: Tensor, dtype: torch.dtype) -> Tensor:
    """Over rows, of numbers in the dtype of arithmetic."""
    out = a.new_zeros(a.shape[1], dtype=dtype)
    if a.numel():
        own.call.sums(arguments(a, out, *a.shape, torch.get_num_threads()))
    return out


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


def _recurrent_gradients(
    own: Library, inputs: Inputs, y: Tensor, d_x: Tensor, d_r: Tensor, d_bias_ih: Tensor, d: int
) -> tuple[Tensor, Tensor]:
    """Of the weight, ``d_r_t^T h_{t-1}`` summed over all steps, and of the bias."""
    T, B, _ = d_x.shape
    H, K = inputs.state[0].shape[-1], inputs.weight_hh[d].shape[1]
    weight, bias = torch.zeros_like(inputs.weight_hh[d]), d_bias_ih.clone()
    if not T * B:
        return weight, bias
    h, initial = y[..., d * H : (d + 1) * H], inputs.state[0][d]
    last = T - 1 if inputs.lengths is None else (inputs.lengths - 1).clamp(0, T - 1)
    for first, gates, differs in _runs(own.differs, d_x, d_r, H):
        start = gates[last, torch.arange(B)] if d else gates[0]  # what meets the initial state
        before, after = (h[1:], gates[:-1]) if d else (h[:-1], gates[1:])
        if differs:
            every = gates.reshape(T * B, -1).to(arithmetic_dtype(gates.dtype))
            bias[first : first + gates.shape[-1]] = _sum(own, every, gates.dtype)
        width = gates.shape[-1] if K == H else K  # all gates at once, or a gate of a head
        for row in range(0, gates.shape[-1], width):
            part, units, some = (
                slice(at, at + size) for at, size in ((first + row, width), (row % H, K), (row, width))
            )
            _outer(own, start[:, some], initial[:, units], weight[part])
            _outer(own, _rows(after)[:, some], _rows(before)[:, units], weight[part])
    return weight, bias


def _runs(differs: tuple[bool, ...], d_x: Tensor, d_r: Tensor, H: int) -> list[tuple[int, Tensor, bool]]:
    """The gradient of r, ``(T, B, ·)`` each: neighbouring gates of one origin together, with the row they begin at."""
    runs = []
    first = taken = 0
    for g in range(len(differs)):
        if g + 1 == len(differs) or differs[g + 1] != differs[g]:
            width = (g + 1 - first) * H
            gates = d_r[..., taken : taken + width] if differs[g] else d_x[..., first * H : (g + 1) * H]
            runs.append((first * H, gates, differs[g]))
            taken += width if differs[g] else 0
            first = g + 1
    return runs


def _rows(every: Tensor) -> Tensor:
    """``(T, B, ·) -> (T·B, ·)``, of neighbouring columns of a contiguous tensor."""
    return every.as_strided((every.shape[0] * every.shape[1], every.shape[2]), (every.stride(1), 1))
