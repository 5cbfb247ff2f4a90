"""Handles ragged batches: checks ``lengths``, and converts from and to `PackedSequence`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_lengths(lengths: Tensor, steps: int, batch: int) -> Tensor:
    """Check lengths and return them as ``(B,)`` int64.

    On the CPU, the values are checked too. On other devices this would wait for the device, so values outside 0..T are
    clamped instead.

    Args:
        lengths: a tensor of integers, ``(B,)``.
        steps: T.
        batch: B.

    Raises:
        TypeError: If `lengths` is not a tensor of integers.
        ValueError: If the shape is not ``(B,)``, or if a value on the CPU is outside 0..T.
    """
    if not isinstance(lengths, Tensor) or lengths.dtype not in INTEGERS:
        got = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"lengths must be a tensor of integers, one per sequence, got {got}")
    if lengths.shape != (batch,):
        raise ValueError(
            f"lengths must have shape ({batch},), one per sequence of the batch, got {tuple(lengths.shape)}"
        )
    traced = torch.compiler.is_compiling() or torch._C._functorch.is_batchedtensor(lengths)
    if lengths.device.type == "cpu" and batch and not traced:
        low, high = (int(bound) for bound in torch.aminmax(lengths))
        if low < 0 or high > steps:
            raise ValueError(f"lengths must lie in 0..{steps}, the input's time steps, got {low if low < 0 else high}")
    return lengths.long().clamp(0, steps)


def unpack(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """Return the padded ``(T, B, I)`` and the lengths ``(B,)``, with rows in the order from before packing."""
    x, lengths = pad_packed_sequence(packed)
    return x, lengths


def repack(y_TBH: Tensor, like: PackedSequence) -> PackedSequence:
    """Pack the padded output in the same way as the input `like`."""
    if like.sorted_indices is not None:
        y_TBH = y_TBH.index_select(1, like.sorted_indices)
    lengths = (torch.arange(y_TBH.shape[1], device=like.batch_sizes.device)[:, None] < like.batch_sizes).sum(1)
    packed = pack_padded_sequence(y_TBH, lengths)
    return PackedSequence(packed.data, like.batch_sizes, like.sorted_indices, like.unsorted_indices)
