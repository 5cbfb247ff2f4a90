"""Many to many, aligned: an output for every step."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seqnets.layers import Recurrent


class StepPredictor(nn.Module):
    """Embedding if any, dropout, recurrent stack, dropout, and one linear layer that all steps share.

    ``o_t = W · dropout(y_t) + b`` with ``y_t`` the recurrent outputs: logits of the next note, word, bit, …

    Args:
        recurrent: the recurrent stack; its `batch_first` must be False, as sequences are laid out time first.
        out_features: C, outputs of a step.
        embedding: maps ids to vectors, ``(T, B)`` to ``(T, B, I)``; None where the inputs are vectors already.
        input_dropout: probability of dropout on what the recurrent stack reads.
        dropout: probability of dropout on what the linear layer reads.

    Raises:
        ValueError: `recurrent` is batch first, or there are no outputs.
    """

    def __init__(
        self,
        recurrent: Recurrent,
        out_features: int,
        embedding: nn.Module | None = None,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if recurrent.batch_first:
            raise ValueError("the recurrent stack of a StepPredictor must have batch_first=False")
        if out_features < 1:
            raise ValueError(f"each step needs an output or more, got out_features={out_features}")
        self.embedding = embedding
        self.input_dropout = nn.Dropout(input_dropout)
        self.recurrent = recurrent
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(recurrent.output_size * recurrent.num_directions, out_features)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None, state: Any = None) -> Tensor:
        """The outputs ``(B, T, C)`` alone, as `run` gives them."""
        return self.run(inputs, lengths, state)[0]

    def run(self, inputs: Tensor, lengths: Tensor | None = None, state: Any = None) -> tuple[Tensor, Any]:
        """All steps at once.

        Args:
            inputs: ``(B, T)`` ids, or ``(B, T, I)``.
            lengths: ``(B,)``, where sequences differ; what the inputs hold beyond them does not matter, nor do those outputs.
            state: of the recurrent stack, as this method returns it; None: its own initial one.

        Returns:
            Outputs ``(B, T, C)``, and the state after each sequence's last step.
        """
        y, state, *_ = self.recurrent(self._read(inputs.transpose(0, 1)), state, lengths)
        return self.head(self.dropout(y)).transpose(0, 1), state

    def step(self, inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One step, for generating: inputs ``(B,)`` ids or ``(B, I)`` -> outputs ``(B, C)`` and the state after it.

        Raises:
            RuntimeError: the recurrent stack is bidirectional.
        """
        y, state = self.recurrent.step(self._read(inputs), state)
        return self.head(self.dropout(y)), state

    def _read(self, inputs: Tensor) -> Tensor:
        return self.input_dropout(inputs if self.embedding is None else self.embedding(inputs))
