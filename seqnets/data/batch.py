"""What a loader gives and a task takes."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One batch: ``inputs`` (B, T) int64 token ids or (B, T, I) numbers, ``targets`` (B,) int64 labels."""

    inputs: Tensor
    targets: Tensor
