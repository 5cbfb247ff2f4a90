"""Defines a many-to-one regression model, which predicts numbers for a sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqnets.layers import Recurrent
from seqnets.models.states import last_states


class SequenceRegressor(nn.Module):
    """Applies a recurrent stack, dropout on the final state of each direction, and a linear layer.

    Args:
        recurrent: the recurrent stack. Its `batch_first` must be False, because it gets sequences time first.
        out_features: the number of outputs for a sequence.
        dropout: probability of dropout on the input of the linear layer.
        recurrent_gain: factor by which the initial recurrent weights are multiplied; above 1, gradients explode.

    Raises:
        ValueError: If `recurrent` is batch first, or if there are no outputs.
    """

    def __init__(
        self, recurrent: Recurrent, out_features: int = 1, dropout: float = 0.0, recurrent_gain: float = 1.0
    ) -> None:
        super().__init__()
        if recurrent.batch_first:
            raise ValueError("the recurrent stack of a SequenceRegressor must have batch_first=False")
        if out_features < 1:
            raise ValueError(f"a regression needs an output or more, got out_features={out_features}")
        self.recurrent = recurrent
        with torch.no_grad():
            for weights in recurrent.direction_weights():
                weights.weight_hh.mul_(recurrent_gain)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(recurrent.output_size * recurrent.num_directions, out_features)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Predict ``(B, out_features)`` from ``(B, T, I)``, with ``(B,)`` lengths if they differ."""
        _, state, *_ = self.recurrent(inputs.transpose(0, 1), None, lengths)
        return self.head(self.dropout(last_states(state, self.recurrent.num_directions)))
