"""Defines modules that can be placed between the embedding and the recurrent stack."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ConvFront(nn.Module):
    """Convolves over time and pools, so that the recurrence reads shorter sequences of local features.

    It applies dropout, a convolution over ``kernel_size`` steps without padding, ReLU, and max pooling over
    ``pool_size`` steps.

    Args:
        in_channels: the number of input features.
        out_channels: the number of output features.
        kernel_size: the number of steps that one output feature sees, before pooling.
        pool_size: the number of steps that are pooled into one. A remainder at the end is dropped.
        dropout: probability of dropout on the input.

    ``forward (T, B, in_channels) -> ((T - kernel_size + 1) // pool_size, B, out_channels)`` raises ValueError if the
    sequence is too short for one output step.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, pool_size: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.convolution = nn.Conv1d(in_channels, out_channels, kernel_size)
        self.pool_size = pool_size

    def windows(self, steps: int) -> list[tuple[int, int]]:
        """Return the range ``(start, stop)`` of input steps that each output step sees, for an input of `steps`."""
        kernel = self.convolution.kernel_size[0]
        outputs = max(0, (steps - kernel + 1) // self.pool_size)
        return [(k * self.pool_size, (k + 1) * self.pool_size + kernel - 1) for k in range(outputs)]

    def forward(self, x: Tensor) -> Tensor:
        least = self.convolution.kernel_size[0] + self.pool_size - 1
        if x.shape[0] < least:
            raise ValueError(f"a sequence of {x.shape[0]} steps is too short for this front, which needs {least}")
        features = self.convolution(self.dropout(x).permute(1, 2, 0)).relu()
        return F.max_pool1d(features, self.pool_size).permute(2, 0, 1)
