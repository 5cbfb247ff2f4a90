"""Many to many, aligned: the next token after each."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import init as initialize

from seqnets.cells import Cell
from seqnets.layers import Recurrent
from seqnets.models.dropout import DropoutEmbedding, LockedDropout, check_probabilities, drop_recurrent_weights

State = tuple[tuple[Tensor, ...], ...]


class Modelled(NamedTuple):
    """What a language model gives.

    Attributes:
        logits: ``(B, T, V)`` of the token after each.
        state: of each layer, to pass on with the tokens that follow.
        outputs: ``(T, B, H)`` of the last layer, before its dropout.
        dropped: the same, after it.
    """

    logits: Tensor
    state: State
    outputs: Tensor
    dropped: Tensor


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, and a softmax over the vocabulary; dropout as in AWD-LSTM.

    Args:
        cell: of the recurrent layers, as `Recurrent` takes it.
        vocab_size: V.
        embedding_dim: I.
        hidden_size: H of each layer; with `tied`, the last layer's is I.
        num_layers: L.
        tied: the softmax's weights are those of the embedding (Press and Wolf 2017; Inan et al. 2017).
        embedding_dropout: of words, see `DropoutEmbedding`.
        input_dropout, layer_dropout, output_dropout: on what the first layer reads, between layers, and on what the softmax reads:
            the same units at all steps, see `LockedDropout`.
        weight_dropout: of recurrent weights, see `drop_recurrent_weights`.
        init_scale: embedding and softmax start uniform within plus and minus this.
        backend: of the recurrent layers.

    ``forward``: tokens ``(B, T)`` and the state that an earlier call returned, or None -> `Modelled`.

    Raises:
        ValueError: an option is out of range.

    Source: Merity, Keskar and Socher, "Regularizing and optimizing LSTM language models", ICLR 2018 (arXiv:1708.02182).
    """

    def __init__(
        self,
        cell: Cell | str,
        vocab_size: int,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int = 1,
        tied: bool = False,
        embedding_dropout: float = 0.0,
        input_dropout: float = 0.0,
        layer_dropout: float = 0.0,
        output_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        init_scale: float = 0.1,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        check_probabilities(
            embedding_dropout=embedding_dropout, input_dropout=input_dropout, layer_dropout=layer_dropout,
            output_dropout=output_dropout, weight_dropout=weight_dropout,
        )  # fmt: skip
        if num_layers < 1:
            raise ValueError(f"num_layers is {num_layers}, but must be at least 1")
        sizes = [embedding_dim, *[hidden_size] * (num_layers - 1), embedding_dim if tied else hidden_size]
        self.embedding = DropoutEmbedding(vocab_size, embedding_dim, embedding_dropout)
        self.input_dropout = LockedDropout(input_dropout)
        self.layer_dropout = LockedDropout(layer_dropout)
        self.output_dropout = LockedDropout(output_dropout)
        self.layers = nn.ModuleList(
            Recurrent(cell, wider, narrower, backend=backend) for wider, narrower in pairwise(sizes)
        )
        self.softmax = nn.Linear(sizes[-1], vocab_size)
        initialize.uniform_(self.embedding.weight, -init_scale, init_scale)
        initialize.uniform_(self.softmax.weight, -init_scale, init_scale)
        initialize.zeros_(self.softmax.bias)
        if tied:
            self.softmax.weight = self.embedding.weight
        if weight_dropout:
            for layer in self.layers:
                drop_recurrent_weights(layer, weight_dropout)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor, state: State | None = None) -> Modelled:
        x = self.input_dropout(self.embedding(tokens.T))
        after: list[Any] = []
        for k, layer in enumerate(self.layers):
            if k:
                x = self.layer_dropout(x)
            x, final = layer(x, None if state is None else state[k])
            after.append(tuple(final))
        dropped = self.output_dropout(x)
        return Modelled(self.softmax(dropped).transpose(0, 1), tuple(after), x, dropped)
