"""Converts gates between torch's order and the order that kernels read: packed, those of a unit side by side.

One wide load, product or store then serves several gates, and a tile is split into gates in registers. Gate after gate,
as in `torch.nn`, each load and store would convert the layout of its own tile, at the cost of two barriers. Only powers
of two can be split, so G gates are packs of 4, 2 and 1: three are a pair and a single.

Shape legend: T time steps, B batch, D directions, N heads, U units per head, G gates, Q = G·U.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pack_widths(gates: int) -> tuple[int, ...]:
    """Return the widths of the packs for a number of gates: ``3 -> (2, 1)``, ``4 -> (4,)``, ``5 -> (4, 1)``."""
    rest = gates % 4
    return (4,) * (gates // 4) + (2,) * (rest // 2) + (1,) * (rest % 2)


def pack_rows(rows: Tensor, gates: int, heads: int) -> Tensor:
    """Convert rows in torch's order, ``(G·N·U, …)`` by gate, head and unit, to ``(N, Q, …)``, differentiably."""
    packs = rows.unflatten(0, (gates, heads, -1)).split(pack_widths(gates))
    return _join([pack.movedim(0, 2).flatten(1, 2) for pack in packs], dim=1)


def pack_weight(weight_hh: Tensor, gates: int, heads: int) -> Tensor:
    """Convert a recurrent weight in torch's order, ``(G·N·U, U)``, to ``(N, U, Q)``, differentiably.

    The result is what states are multiplied by from the right.
    """
    packs = weight_hh.unflatten(0, (gates, heads, -1)).split(pack_widths(gates))
    return _join([pack.permute(1, 3, 2, 0).flatten(2) for pack in packs], dim=2)


def _join(packs: list[Tensor], dim: int) -> Tensor:
    return packs[0] if len(packs) == 1 else torch.cat(packs, dim)  # cat would copy even a single tensor


def unpack_columns(packed: Tensor, gates: int) -> Tensor:
    """Convert columns ``(…, N, Q)`` back to torch's order, ``(…, G·N·U)``, differentiably."""
    widths = pack_widths(gates)
    units = packed.shape[-1] // gates
    packs = packed.split([units * width for width in widths], dim=-1)
    by_gate = [pack.unflatten(-1, (units, width)).movedim(-1, -3) for pack, width in zip(packs, widths, strict=True)]
    return torch.cat(by_gate, dim=-3).flatten(-3)


def first_steps(every: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the entries of ``(T, B, D, …)`` that each direction processes first, as ``(D, B, …)``.

    A reverse direction starts at each row's end.
    """
    if every.shape[2] == 1:
        return every[:1, :, 0]
    return torch.stack([every[0, :, 0], every[_ends(every, lengths)]])


def set_first_steps(every: Tensor, first: Tensor, lengths: Tensor | None) -> None:
    """Write the entries that `first_steps` returns, in place."""
    every[0, :, 0] = first[0]
    if every.shape[2] == 2:
        every[_ends(every, lengths)] = first[1]


def _ends(every: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, int]:
    rows = torch.arange(every.shape[1], device=every.device)
    last = torch.full_like(rows, every.shape[0] - 1) if lengths is None else (lengths - 1).clamp(0, every.shape[0] - 1)
    return last, rows, 1
