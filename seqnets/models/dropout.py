"""Implements dropout for recurrent networks: of the same units at all steps, of words, and of recurrent weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from seqnets.layers import Recurrent


class LockedDropout(nn.Module):
    """Drops the same features of a sequence at every step: ``(T, B, I) -> (T, B, I)``.

    Source: Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks", NeurIPS
    2016.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        return x * F.dropout(x.new_ones(1, *x.shape[1:]), self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class DropoutEmbedding(nn.Embedding):
    """Embeds words and drops some of them: all occurrences of a word in a batch, or none.

    Source: Gal and Ghahramani, as in `LockedDropout`.

    Args:
        p: probability that a word is dropped in training.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, p: float = 0.0) -> None:
        super().__init__(num_embeddings, embedding_dim)
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        x = super().forward(input)
        if not self.training or not self.p:
            return x
        kept = F.dropout(x.new_ones(self.num_embeddings), self.p)
        return x * kept[input].unsqueeze(-1)


class _DropWeights(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, weight: Tensor) -> Tensor:
        return F.dropout(weight, self.p, self.training)


def drop_recurrent_weights(layer: Recurrent, p: float) -> None:
    """Apply DropConnect to the recurrent weights of `layer`, in training.

    Each forward drops every recurrent weight with probability `p` and scales the others by 1 / (1 - p). The dropped
    weights are sampled once per forward, and are the same at all steps.

    Source: Merity, Keskar and Socher, "Regularizing and optimizing LSTM language models", ICLR 2018.
    """
    for name in [name for name, _ in layer.named_parameters(recurse=False) if name.startswith("weight_hh")]:
        parametrize.register_parametrization(layer, name, _DropWeights(p))


def check_probabilities(**probabilities: float) -> None:
    """Check that all probabilities are in [0, 1).

    Raises:
        ValueError: If one of them is not. The message names it.
    """
    for name, p in probabilities.items():
        if not 0 <= p < 1:
            raise ValueError(f"{name} is {p}, but a probability of dropout is at least 0 and below 1")
