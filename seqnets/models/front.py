"""What may stand between the embedding and the recurrent stack."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ConvFront(nn.Module):
    """Convolution over time and pooling: shorter sequences of local features for the recurrence to read.

    Dropout, convolution of ``kernel_size`` steps without padding, ReLU, max pooling over ``pool_size`` steps.

    Args:
        in_channels: features of the input.
        out_channels: features of the output.
        kernel_size: steps that one output feature sees, before pooling.
        pool_size: steps pooled into one; a remainder at the end is dropped.
        dropout: probability of dropout on the input.

    ``forward (T, B, in_channels) -> ((T - kernel_size + 1) // pool_size, B, out_channels)``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, pool_size: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.convolution = nn.Conv1d(in_channels, out_channels, kernel_size)
        self.pool_size = pool_size

    def windows(self, steps: int) -> list[tuple[int, int]]:
        """The input steps, from and to, that each output step sees."""
        kernel = self.convolution.kernel_size[0]
        outputs = max(0, (steps - kernel + 1) // self.pool_size)
        return [(k * self.pool_size, (k + 1) * self.pool_size + kernel - 1) for k in range(outputs)]

    def forward(self, x: Tensor) -> Tensor:
        least = self.convolution.kernel_size[0] + self.pool_size - 1
        if x.shape[0] < least:
            raise ValueError(f"a sequence of {x.shape[0]} steps is too short for this front, which needs {least}")
        features = self.convolution(self.dropout(x).permute(1, 2, 0)).relu()
        return F.max_pool1d(features, self.pool_size).permute(2, 0, 1)
