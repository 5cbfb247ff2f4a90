"""Runs a layer in all its directions by compiled kernels: prepares their inputs and allocates their outputs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.errors import BackendError
from seqnets.kernels.cpp.library import Library, library, loaded
from seqnets.kernels.cpp.openmp import count_threads
from seqnets.kernels.cpp.pool import pool

ROWS = 64  # most rows of a task
CACHE = 1 << 17  # bytes of projections that a task should keep in its cache


class Inputs(NamedTuple):
    """Holds the inputs of a layer, all of one dtype and on the CPU.

    Lists are ordered by direction; `params` and `masks` by direction and then by name.

    Shape legend: T time steps, B batch, I input size, D directions, H units in heads of K, G gates, S states.
    """

    x: Tensor  # (T, B, I), each row contiguous
    state: Sequence[Tensor]  # S × (D, B, H); this and all that follow are contiguous
    weight_ih: Sequence[Tensor]  # D × (G·H, I)
    weight_hh: Sequence[Tensor]  # D × (G·H, K)
    bias_ih: Sequence[Tensor]  # D × (G·H,), or none
    bias_hh: Sequence[Tensor]
    params: Sequence[Tensor]  # (H,) each
    masks: Sequence[Tensor]  # (B, H) or (T, B, H) each
    lengths: Tensor | None  # (B,) int64


class Kept(NamedTuple):
    """Holds what the forward pass keeps for the backward pass."""

    states: Sequence[Tensor]  # S × (T, B, D·H); the first is the output
    saved: Tensor  # (D, T, B, saved·H)
    columns: Tensor  # (D, T, B, columns), in the arithmetic dtype


def prepare(x: Tensor, *lists: Sequence[Tensor], lengths: Tensor | None) -> Inputs:
    """Return the inputs in the memory layout that kernels read; copy only tensors in another layout."""
    tensors = list(chain.from_iterable(lists))
    if not all(map(Tensor.is_contiguous, tensors)) or any(map(Tensor.is_neg, tensors)):
        lists = tuple([[t.resolve_neg().contiguous() for t in group] for group in lists])
    return Inputs._make([rows(x), *lists, None if lengths is None else lengths.contiguous()])


def rows(tensor: Tensor) -> Tensor:
    """Return the tensor with contiguous rows, copied only if needed.

    The other dimensions may have any strides, as in a batch-first tensor.
    """
    tensor = tensor.resolve_neg()
    return tensor if tensor.stride(-1) == 1 or not tensor.numel() else tensor.contiguous()


def run_forward(cell: Cell, inputs: Inputs, keep_states: bool, keep: bool) -> tuple[Kept, list[Tensor]]:
    """Run the forward pass of a layer.

    Args:
        cell: The cell of the layer.
        inputs: The inputs, as `prepare` returns them.
        keep_states: Keep all states of every step, as the backward pass needs them, instead of the output alone.
        keep: Keep what else the backward pass needs.

    Returns:
        What is kept, which always includes the output, and the last states, S × (D, B, H).

    Raises:
        BackendError: No compiled kernel serves the cell.
        MemoryError: There is no memory left for the work space of the kernels.
    """
    own = _library(cell, inputs.x.dtype)
    x, state, D, dtype = inputs.x, inputs.state, len(inputs.weight_hh), inputs.x.dtype
    T, B, _ = x.shape
    S, H = len(state), state[0].shape[-1]
    *states, saved, columns = pool.allocate(
        *([((T, B, D * H), dtype)] * (S if keep_states else 1)),
        ((D, T, B, own.printed.saved_per_unit * H if keep else 0), dtype),
        ((D, T, B, own.printed.saved_per_row if keep else 0), own.arithmetic),
    )
    if not T or not B:
        return Kept(states, saved, columns), [s.clone() for s in state]
    finals = [torch.empty_like(s) for s in state]
    given = _common(inputs)
    for d in range(D):
        given += [
            d, int(keep), inputs.weight_ih[d].data_ptr(), inputs.weight_hh[d].data_ptr(),
            _at(inputs.bias_ih, d), _at(inputs.bias_hh, d), *_of_direction(state, d, D), *_side(inputs, d),
            *_sequences(states, d, D, S),
            *_of_direction((saved, columns, *finals), d, D),
        ]  # fmt: skip
    _call(own.call.forward, given)
    return Kept(states, saved, columns), finals


def run_backward(
    cell: Cell,
    inputs: Inputs,
    kept: Kept,
    d_states: Sequence[Tensor | None],
    d_finals: Sequence[Tensor | None],
    want_input: bool = True,
) -> list[Tensor]:
    """Run the backward pass of a layer.

    Args:
        cell: The cell of the layer.
        inputs: The inputs of the forward pass.
        kept: What the forward pass kept.
        d_states: Gradients of the states of all steps, S × (T, B, D·H) each or None.
        d_finals: Gradients of the last states, S × (D, B, H) each or None.
        want_input: Compute the gradient of x.

    Returns:
        The gradients of x (empty if not wanted), state, weight_ih, weight_hh, bias_ih, bias_hh and params, as one list.
        Within each group they have the order of the inputs.

    Raises:
        MemoryError: There is no memory left for the work space of the kernels.
    """
    own = loaded(cell, inputs.x.dtype)
    x, state, D, dtype = inputs.x, inputs.state, len(inputs.weight_hh), inputs.x.dtype
    T, B, _ = x.shape
    S, P, H = len(state), len(cell.params), state[0].shape[-1]
    d_states = [None if d is None else rows(d) for d in d_states]
    d_finals = [None if d is None else d.resolve_neg().contiguous() for d in d_finals]
    if not T or not B:
        d_initial = [torch.zeros_like(s) if d is None else d.clone() for s, d in zip(state, d_finals, strict=True)]
        others = (*inputs[2:6], inputs.params)
        return [torch.zeros_like(x), *d_initial, *(torch.zeros_like(t) for tensors in others for t in tensors)]
    d_input = pool.empty(tuple(x.shape) if want_input else (0,), dtype)
    d_initial = [torch.empty_like(s) for s in state]
    d_weights = [[pool.empty(tuple(t.shape), dtype) for t in tensors] for tensors in inputs[2:6]]
    d_params = [torch.empty_like(p) for p in inputs.params]
    # needed during the call only: gradients of all gates, and of the parameters per row of the batch
    d_x = pool.empty((D, T, B, cell.gates * H), dtype)
    d_r = pool.empty((D, T, B, sum(own.printed.differs) * H), dtype)
    d_rows = pool.empty((D * P, B, H), own.arithmetic)
    given = [*_common(inputs), d_input.data_ptr() if want_input else 0]
    for d in range(D):
        own_params = range(d * P, (d + 1) * P)
        given += [
            d, inputs.weight_ih[d].data_ptr(), inputs.weight_hh[d].data_ptr(), *_of_direction(state, d, D),
            *_side(inputs, d), *_sequences(kept.states, d, D, S), *_of_direction((kept.saved, kept.columns), d, D),
            *_sequences(d_states, d, D, S), *_of_direction(d_finals, d, D), *_of_direction((d_x, d_r), d, D),
            *(d_rows[k].data_ptr() for k in own_params), *_of_direction(d_initial, d, D),
            *(_at(tensors, d) for tensors in d_weights), *(d_params[k].data_ptr() for k in own_params),
        ]  # fmt: skip
    _call(own.call.backward, given)
    return [d_input, *d_initial, *(t for tensors in d_weights for t in tensors), *d_params]


def _library(cell: Cell, dtype: torch.dtype) -> Library:
    found = library(cell, dtype)
    if isinstance(found, str):
        raise BackendError(f"no kernel can run this recurrence: {found}")
    return found


def _call(function: Callable[[Any], int], given: list[int]) -> None:
    if function((ctypes.c_int64 * len(given))(*given)):  # `Arguments` in problem.hpp reads them
        raise MemoryError("no memory is left for what kernels work with: packed weights, and some rows of each task")


# ---- numbers and addresses, in the order in which `Problem`, `Forward` and `Backward` (C++) read them


def _common(inputs: Inputs) -> list[int]:
    x, weight, D = inputs.x, inputs.weight_hh[0], len(inputs.weight_hh)
    (T, B, I), H = x.shape, inputs.state[0].shape[-1]
    threads = count_threads()
    blocks = count_blocks(B, D, threads, weight.shape[0] * max(4, x.element_size()))
    lengths = 0 if inputs.lengths is None else inputs.lengths.data_ptr()
    return [T, B, I, H, H // weight.shape[1], D, threads, blocks, lengths, x.data_ptr(), x.stride(0), x.stride(1)]


def count_blocks(B: int, D: int, threads: int, row_bytes: int) -> int:
    """Return the number of tasks into which the rows of each direction are divided.

    Tasks are small enough for the cache, and numerous enough to keep all threads busy.

    Args:
        B: The batch size.
        D: The number of directions.
        threads: The number of threads.
        row_bytes: The bytes of the projections of one row.
    """
    most = max(8, min(ROWS, CACHE // row_bytes))
    blocks = -(-B // most)
    while blocks < B and D * blocks % threads and D * blocks < 4 * threads:
        blocks += 1
    return min(blocks, B)


def _side(inputs: Inputs, d: int) -> list[int]:
    D = len(inputs.weight_hh)
    P, M = len(inputs.params) // D, len(inputs.masks) // D
    masks = inputs.masks[d * M : (d + 1) * M]
    found = list(map(Tensor.data_ptr, (*inputs.params[d * P : (d + 1) * P], *masks)))
    for mask in masks:
        found += (mask.stride(0) if mask.dim() == 3 else 0, mask.stride(-2))
    return found


def _sequences(tensors: Sequence[Tensor | None], d: int, D: int, count: int) -> list[int]:
    """Return addresses (0 for None), then strides of T and B, of a direction's part of each ``(T, B, D·H)`` tensor."""
    found, strides = [0] * count, [0] * (2 * count)
    for k, t in enumerate(tensors):
        if t is not None:
            found[k] = t.data_ptr() + d * (t.shape[-1] // D) * t.element_size()
            strides[2 * k : 2 * k + 2] = t.stride()[:2]
    return found + strides


def _of_direction(tensors: Sequence[Tensor | None], d: int, D: int) -> list[int]:
    """Return the address (0 for None) of a direction's part of each contiguous ``(D, …)`` tensor."""
    return [0 if t is None else t.data_ptr() + d * (t.numel() // D) * t.element_size() for t in tensors]


def _at(tensors: Sequence[Tensor], d: int) -> int:
    return tensors[d].data_ptr() if tensors else 0
