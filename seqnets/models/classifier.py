"""Defines a many-to-one classification model, which predicts a label for a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import init as initialize

from seqnets.layers import Recurrent
from seqnets.models.states import last_states


class SequenceClassifier(nn.Module):
    """Applies an embedding, an optional front, a recurrent stack, pooling over time, and a head.

    Args:
        recurrent: the recurrent stack. Its `batch_first` must be False, because it gets sequences time first.
        num_classes: the number of classes: 2 gives a single logit (for a sigmoid), more give one each (for a softmax).
        embedding: maps ``(T, B)`` token ids to ``(T, B, I)``; None if the input is ``(B, T, I)`` already.
        front: maps ``(T, B, I)`` to ``(T', B, I')``, for example `ConvFront`.
        pooling: what the head reads: ``"last"``, the final state of each direction; or ``"mean"`` or ``"max"``, that of
            the recurrent outputs over time.
        head_sizes: hidden sizes of the head. Each hidden layer is followed by ReLU and dropout.
        head_dropout: probability of that dropout.
        init: ``"torch"``, or ``"keras"``: embedding uniform in ±0.05, Glorot uniform weights and zero biases elsewhere.
            The recurrent stack has an `init` of its own.

    ``forward`` takes token ids ``(B, T)`` or inputs ``(B, T, I)``, and returns logits: ``(B,)`` for two classes, else
    ``(B, num_classes)``.

    Raises:
        ValueError: If an option is not among its choices, or if `recurrent` is batch first.
    """

    def __init__(
        self,
        recurrent: Recurrent,
        num_classes: int = 2,
        embedding: nn.Module | None = None,
        front: nn.Module | None = None,
        pooling: Literal["last", "mean", "max"] = "last",
        head_sizes: Sequence[int] = (),
        head_dropout: float = 0.0,
        init: Literal["torch", "keras"] = "torch",
    ) -> None:
        super().__init__()
        if pooling not in ("last", "mean", "max"):
            raise ValueError(f"unknown pooling {pooling!r}; choose from last, mean, max")
        if init not in ("torch", "keras"):
            raise ValueError(f"unknown init {init!r}; choose from torch, keras")
        if recurrent.batch_first:
            raise ValueError("the recurrent stack of a SequenceClassifier must have batch_first=False")
        if num_classes < 2:
            raise ValueError(f"a classifier needs two classes or more, got num_classes={num_classes}")
        self.embedding = embedding
        self.front = front
        self.recurrent = recurrent
        self.pooling = pooling
        sizes = [recurrent.output_size * recurrent.num_directions, *head_sizes]
        hidden: list[nn.Module] = []
        for narrower, wider in zip(sizes[1:], sizes[:-1], strict=True):
            hidden += [nn.Linear(wider, narrower), nn.ReLU(), nn.Dropout(head_dropout)]
        self.head = nn.Sequential(*hidden, nn.Linear(sizes[-1], 1 if num_classes == 2 else num_classes))
        if init == "keras":
            self.apply(_keras)

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.head(self._pool(self.features(inputs)))
        return logits.squeeze(-1) if logits.shape[-1] == 1 else logits

    def features(self, inputs: Tensor) -> Tensor:
        """Compute the input of the recurrent stack, ``(T, B, I)``, from inputs as `forward` takes them."""
        x = inputs.transpose(0, 1)
        if self.embedding is not None:
            x = self.embedding(x)
        return x if self.front is None else self.front(x)

    def _pool(self, x: Tensor) -> Tensor:
        y, state, *_ = self.recurrent(x)
        if self.pooling == "mean":
            return y.mean(0)
        if self.pooling == "max":
            return y.amax(0)
        return last_states(state, self.recurrent.num_directions)


def _keras(module: nn.Module) -> None:
    if isinstance(module, nn.Embedding):
        initialize.uniform_(module.weight, -0.05, 0.05)
    elif isinstance(module, nn.Linear | nn.Conv1d):
        initialize.xavier_uniform_(module.weight)
        if module.bias is not None:
            initialize.zeros_(module.bias)
