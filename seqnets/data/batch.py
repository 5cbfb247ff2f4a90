"""What a loader gives and a task takes."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One batch.

    Attributes:
        inputs: ``(B, T)`` int64 ids, or ``(B, T, I)`` numbers.
        targets: ``(B,)`` one per sequence, or ``(B, T, …)`` one per step.
        lengths: ``(B,)`` int64 steps of each sequence, where they differ; None where all are T long.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None = None
