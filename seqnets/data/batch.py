"""Defines the batch that a loader yields and a task consumes."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Holds one batch of sequences.

    Attributes:
        inputs: ``(B, T)`` int64 ids, or ``(B, T, I)`` numbers.
        targets: ``(B,)`` or ``(B, K)`` for one target per sequence, ``(B, T, …)`` for one per step.
        lengths: ``(B,)`` int64, the number of steps of each sequence; None if all have T steps.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None = None
