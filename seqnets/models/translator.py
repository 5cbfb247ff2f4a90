"""Defines an encoder-decoder model: many to many, not aligned."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqnets.layers import Recurrent
from seqnets.models.states import as_taken, as_tuple, last_states


class Memory(NamedTuple):
    """Holds the encoder's view of a batch of source sequences.

    Attributes:
        states: ``(B, S, D)``, the encoder's output at each of the S steps of the source; 0 beyond its end.
        real: ``(B, S)`` bool, False beyond the end of the source.
    """

    states: Tensor
    real: Tensor


class Translator(nn.Module):
    """Translates sequences with an encoder and a decoder that are connected by attention.

    Sources: Sutskever, Vinyals and Le, NeurIPS 2014 (encoder and decoder); Bahdanau, Cho and Bengio, ICLR 2015
    (attention).

    Let h_s be the encoder's outputs over the source, and y_t the decoder's outputs over the words before step t:

        y_t = decoder(E w_{t-1}),  started from tanh(W_0 [h_S→; h_1←])
        a_t = softmax_s(y_t · W_a h_s)
        c_t = Σ_s a_ts h_s
        o_t = tanh(W_c [c_t; y_t])
        p(w_t) = softmax(E o_t + b)

    This is the global attention with general score of Luong, Pham and Manning (EMNLP 2015), without their input
    feeding. The recurrence then does not depend on the attention. Training can run it over the whole target at once, in
    fused kernels, and attend at all steps in one product. Bahdanau's attention and input feeding would interrupt the
    recurrence at every step. The target embedding E also serves as the output layer (Press and Wolf, EACL 2017).
    Embeddings are initialized from a normal distribution with standard deviation 1/√features, which suits the scores.

    Args:
        source: embeds the source's ids.
        encoder: reads the embedded source. The final states of its last layer initialize all layers of the decoder.
        target: embeds the target's ids; its weights are E.
        decoder: reads the embedded target words.
        dropout: probability of dropout on embeddings, on the encoder's outputs and on o_t.

    ``forward(inputs (B, S), previous (B, T), lengths (B,) or None) -> o (B, T, E)``, whose scores are ``logits(o)``.
    Here previous holds the target's ids delayed by one step. `encode` followed by repeated calls of `step` does the
    same word by word.

    Raises:
        ValueError: If a recurrent stack is batch first, or if the decoder is bidirectional.
    """

    def __init__(
        self, source: nn.Embedding, encoder: Recurrent, target: nn.Embedding, decoder: Recurrent, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if encoder.batch_first or decoder.batch_first:
            raise ValueError("encoder and decoder of a Translator must have batch_first=False")
        if decoder.bidirectional:
            raise ValueError("the decoder cannot be bidirectional: it writes what it would have to read")
        self.source, self.encoder, self.target, self.decoder = source, encoder, target, decoder
        self.dropout = nn.Dropout(dropout)
        read, written = encoder.output_size * encoder.num_directions, decoder.output_size
        sizes = [written] + [decoder.hidden_size] * (len(decoder.cell.states) - 1)
        self.bridges = nn.ModuleList(nn.Linear(read, decoder.num_layers * size) for size in sizes)
        self.score = nn.Linear(read, written, bias=False)
        self.combine = nn.Linear(read + written, target.embedding_dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(target.num_embeddings))
        for embedding in (source, target):
            nn.init.normal_(embedding.weight, std=embedding.embedding_dim**-0.5)

    def forward(self, inputs: Tensor, previous: Tensor, lengths: Tensor | None = None) -> Tensor:
        memory, state = self.encode(inputs, lengths)
        return self._attend(self._write(previous, state), memory)[0]

    def logits(self, o: Tensor) -> Tensor:
        """Compute scores ``(…, words)`` from o ``(…, E)``."""
        return F.linear(o, self.target.weight, self.bias)

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> tuple[Memory, tuple[Tensor, ...]]:
        """Encode source ids ``(B, S)``; return the memory and the decoder's initial states, each ``(L, B, H)``."""
        if lengths is None:
            lengths = torch.full(inputs.shape[:1], inputs.shape[1], device=inputs.device)
        h, final, *_ = self.encoder(self.dropout(self.source(inputs.T)), lengths=lengths)
        real = torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]
        last = last_states(final, self.encoder.num_directions)
        state = (bridge(last).tanh().unflatten(-1, (self.decoder.num_layers, -1)) for bridge in self.bridges)
        return Memory(self.dropout(h).transpose(0, 1), real), tuple(s.transpose(0, 1).contiguous() for s in state)

    def step(self, previous: Tensor, state: Any, memory: Memory) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute the scores of the next word, ``(N, words)``, and the new states.

        Args:
            previous: ``(N,)``, the last words of N = B·K partial translations, K for each source in `memory`.
            state: the decoder's states, each ``(L, N, H)``.
            memory: what `encode` returned for the B sources.
        """
        y, state = self.decoder.step(self.dropout(self.target(previous)), as_taken(state))
        o, _ = self._attend(y.unflatten(0, (len(memory.states), -1)), memory)  # attention takes any number of queries
        return self.logits(o.flatten(0, 1)), as_tuple(state)

    def attention(self, inputs: Tensor, previous: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the attention weights a, ``(B, T, S)``; the arguments are those of `forward`."""
        memory, state = self.encode(inputs, lengths)
        return self._attend(self._write(previous, state), memory)[1]

    def _write(self, previous: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        y, *_ = self.decoder(self.dropout(self.target(previous.T)), as_taken(state))
        return y.transpose(0, 1)

    def _attend(self, y: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Attend with queries ``(B, T, H)``, and return o ``(B, T, E)`` and the weights a ``(B, T, S)``."""
        scores = y @ self.score(memory.states).transpose(1, 2)
        a = scores.masked_fill(~memory.real[:, None], -torch.inf).softmax(-1)
        o = self.combine(torch.cat([a @ memory.states, y], dim=-1)).tanh()
        return self.dropout(o), a
