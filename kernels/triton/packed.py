"""Computes the recurrence on packed tensors by the cell's own step, for higher derivatives and to check kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.kernels.triton.layout import unpack_columns
from seqnets.recurrence import Weights, active_steps
from seqnets.scan import scan


def run_packed(
    cell: Cell,
    x: Tensor,
    state: list[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    params: list[Tensor],
    masks: list[Tensor],
    lengths: Tensor | None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the states at every step, ``(T, B, D, H)`` each, and the final states, ``(D, B, H)`` each.

    The arguments are those of `recurrence`. The first of the states is the output: zero at and beyond the lengths.
    """
    T, D, G = x.shape[0], x.shape[2], cell.gates
    active = None if lengths is None else active_steps(lengths, T, x.device)
    every, finals = [], []
    if not T:
        return [x.new_empty(T, x.shape[1], D, s[0].flatten(-2).shape[-1]) for s in state], [
            s.flatten(-2) for s in state
        ]
    for d in range(D):
        weight_hh = unpack_columns(weight[d].movedim(0, 1), G).T
        bias_hh = None if bias is None else unpack_columns(bias[d], G)
        own = tuple(mask[d].flatten(-2).squeeze(0) if mask.shape[1] == 1 else mask[d].flatten(-2) for mask in masks)
        weights = Weights(weight_hh, weight_hh, None, bias_hh, None, tuple(p[d].flatten() for p in params), own)
        initial = tuple(s[d].flatten(-2) for s in state)
        states = scan(cell, unpack_columns(x[:, :, d], G), initial, weights, active, reverse=d == 1)
        finals.append([s[0 if d else -1] for s in states])
        every.append([s if k or active is None else torch.where(active, s, 0.0) for k, s in enumerate(states)])
    return (
        [torch.stack(directions, dim=2) for directions in zip(*every, strict=True)],
        [torch.stack(directions) for directions in zip(*finals, strict=True)],
    )
