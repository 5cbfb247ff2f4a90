"""Defines a language model, which predicts the next token after each one."""

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
    """Holds the output of a language model.

    Attributes:
        logits: ``(B, T, V)``, the scores of the token after each input token.
        state: the states of each layer, to pass on with the tokens that follow.
        outputs: ``(T, B, H)``, the outputs of the last layer before dropout.
        dropped: ``(T, B, H)``, the same after dropout.
    """

    logits: Tensor
    state: State
    outputs: Tensor
    dropped: Tensor


class LanguageModel(nn.Module):
    """Applies an embedding, recurrent layers and a softmax over the vocabulary, with dropout as in AWD-LSTM.

    Args:
        cell: the cell of the recurrent layers, as `Recurrent` takes it.
        vocab_size: V, the number of tokens in the vocabulary.
        embedding_dim: I, the number of features of the embedding.
        hidden_size: H of each layer; with `tied`, the last layer has I instead.
        num_layers: L, the number of recurrent layers.
        tied: whether softmax and embedding share their weights (Press and Wolf 2017; Inan et al. 2017).
        embedding_dropout: probability of dropping a word; see `DropoutEmbedding`.
        input_dropout, layer_dropout, output_dropout: probability of dropout on the input of the first layer, between
            layers, and on the input of the softmax. The same units are dropped at all steps; see `LockedDropout`.
        weight_dropout: probability of dropping a recurrent weight; see `drop_recurrent_weights`.
        init_scale: embedding and softmax weights are initialized uniformly in ±init_scale.
        backend: the backend of the recurrent layers.

    ``forward`` takes tokens ``(B, T)`` and the state that an earlier call returned, or None. It returns `Modelled`,
    which holds the logits ``(B, T, V)``.

    Raises:
        ValueError: If an option is out of range.

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
