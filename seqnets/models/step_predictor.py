"""Defines a many-to-many model, which predicts an output for every step."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seqnets.layers import Recurrent


class StepPredictor(nn.Module):
    """Applies an optional embedding, dropout, a recurrent stack, dropout, and a linear layer that all steps share.

    It computes ``o_t = W · dropout(y_t) + b`` with the recurrent outputs ``y_t``: logits of the next note, word, bit, …

    Args:
        recurrent: the recurrent stack. Its `batch_first` must be False, because it gets sequences time first.
        out_features: C, the number of outputs of a step.
        embedding: maps ids ``(T, B)`` to vectors ``(T, B, I)``; None if the inputs are vectors already.
        input_dropout: probability of dropout on the input of the recurrent stack.
        dropout: probability of dropout on the input of the linear layer.

    Raises:
        ValueError: If `recurrent` is batch first, or if there are no outputs.
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
        """Return only the outputs of `run`, ``(B, T, C)``."""
        return self.run(inputs, lengths, state)[0]

    def run(self, inputs: Tensor, lengths: Tensor | None = None, state: Any = None) -> tuple[Tensor, Any]:
        """Run all steps at once.

        Args:
            inputs: ids ``(B, T)``, or vectors ``(B, T, I)``.
            lengths: ``(B,)``, if sequences differ in length. Inputs and outputs beyond them have no meaning.
            state: state of the recurrent stack, as this method returns it. None means its own initial state.

        Returns:
            The outputs ``(B, T, C)``, and the state after the last step of each sequence.
        """
        y, state, *_ = self.recurrent(self._read(inputs.transpose(0, 1)), state, lengths)
        return self.head(self.dropout(y)).transpose(0, 1), state

    def step(self, inputs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run one step, to generate sequences.

        Args:
            inputs: ids ``(B,)``, or vectors ``(B, I)``.
            state: state of the recurrent stack, as this method returns it. None means its own initial state.

        Returns:
            The outputs ``(B, C)``, and the state after the step.

        Raises:
            RuntimeError: If the recurrent stack is bidirectional.
        """
        y, state = self.recurrent.step(self._read(inputs), state)
        return self.head(self.dropout(y)), state

    def _read(self, inputs: Tensor) -> Tensor:
        return self.input_dropout(inputs if self.embedding is None else self.embedding(inputs))
