"""Converts sentences of one language to subword ids, and ids of another language back to sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor

PAD, START, END = 0, 1, 2
FIRST_SUBWORD = 3  # smaller ids are the three special ones
BYTES = sorted(ByteLevel.alphabet())  # with all bytes in the vocabulary, any text can be encoded

Side = Literal["source", "target"]


class SentenceEncoder:
    """Turns sentences of the source language into subword ids, and ids of the target language into sentences.

    Each language has its own vocabulary: 0 is padding, 1 start, 2 end of sentence, and subwords begin at 3. Subwords
    come from byte pair encoding over bytes, within words and runs of punctuation. Nothing is out of vocabulary, case
    and spaces are kept, and decoding returns what was encoded.

    Args:
        source, target: the tokenizer of each language.
        usage: a sentence of the source language, as typed on the command line.

    Source: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units", ACL 2016.
    """

    kind, usage = "sentences", '"A dog runs on the beach."'

    def __init__(self, source: Tokenizer, target: Tokenizer, usage: str = usage) -> None:
        self.usage = usage
        self._tokenizers: dict[Side, Tokenizer] = {"source": source, "target": target}

    @classmethod
    def fit(
        cls, sources: Sequence[str], targets: Sequence[str], vocab_size: int, usage: str = usage
    ) -> SentenceEncoder:
        """Learn at most ``vocab_size - 3`` subwords of each language: all bytes, and what occurs at least twice."""
        return cls(_learnt(sources, vocab_size), _learnt(targets, vocab_size), usage)

    @property
    def vocab_size(self) -> int:
        """Return the number of ids of the language that has more."""
        return FIRST_SUBWORD + max(tokenizer.get_vocab_size() for tokenizer in self._tokenizers.values())

    def encode(self, given: Sequence[str], side: Side = "source") -> Tensor:
        """Encode B sentences as ``(B, S)`` int64 ids, padded at the end.

        Sentences of the target language end in the end-of-sentence id.

        Raises:
            ValueError: If a sentence is blank. The message names its position.
        """
        for position, text in enumerate(given):
            if not text.strip():
                raise ValueError(f"sentence {position} ({text!r}) holds no word, so there is nothing to translate")
        end = [END] if side == "target" else []
        encoded = self._tokenizers[side].encode_batch_fast(list(given))
        rows = [torch.tensor([FIRST_SUBWORD + k for k in row.ids] + end) for row in encoded]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)

    def decode(self, ids: Tensor, side: Side = "target") -> list[str]:
        """Return the B sentences of ``(B, T)`` ids, each up to its end-of-sentence id."""
        return [self._tokenizers[side].decode(row).strip() for row in map(_subwords, ids.tolist())]

    def pieces(self, ids: Tensor, side: Side = "target") -> list[str]:
        """Return the subwords of one sentence ``(T,)``. Those that begin a word begin with a space."""
        return [self._tokenizers[side].decode([k]) for k in _subwords(ids.tolist())]

    def to_dict(self) -> dict[str, Any]:
        """Return everything that defines the encoder, as plain types that ``torch.load(weights_only=True)`` accepts."""
        return {"kind": self.kind, "usage": self.usage} | {
            side: tokenizer.to_str() for side, tokenizer in self._tokenizers.items()
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> SentenceEncoder:
        """Rebuild the encoder that `to_dict` described.

        Raises:
            LookupError, TypeError, ValueError: If `state` does not describe an encoder.
        """
        try:
            return cls(Tokenizer.from_str(state["source"]), Tokenizer.from_str(state["target"]), state["usage"])
        except (LookupError, TypeError):
            raise
        except Exception as error:  # the tokenizers raise no narrower type
            raise ValueError(f"the subwords cannot be read: {error}") from error


def _learnt(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=True), ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size - FIRST_SUBWORD, min_frequency=2, initial_alphabet=BYTES, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _subwords(ids: Sequence[int]) -> list[int]:
    """Return the subword ids before the end of the sentence, as the tokenizer counts them."""
    upto = ids[: ids.index(END)] if END in ids else ids
    return [k - FIRST_SUBWORD for k in upto if k >= FIRST_SUBWORD]
