"""Many to one: numbers for a sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqnets.layers import Recurrent
from seqnets.models.states import last_states


class SequenceRegressor(nn.Module):
    """Recurrent stack, each direction's final state, dropout, one linear layer.

    Args:
        recurrent: the recurrent stack; its `batch_first` must be False, as sequences are laid out time first.
        out_features: numbers to give for a sequence.
        dropout: probability of dropout on what the linear layer reads.
        recurrent_gain: times which the recurrent weights start: above 1, to see gradients explode.

    Raises:
        ValueError: `recurrent` is batch first, or there are no outputs.
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
        """``(B, T, I)``, and ``(B,)`` lengths where they differ -> ``(B, out_features)``."""
        _, state, *_ = self.recurrent(inputs.transpose(0, 1), None, lengths)
        return self.head(self.dropout(last_states(state, self.recurrent.num_directions)))
