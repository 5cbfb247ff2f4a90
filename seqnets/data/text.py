"""Words to ids by the rules of Keras's IMDB data, so that figures can be compared with Keras's."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Split
from torch import Tensor

PAD, START, UNKNOWN = 0, 1, 2
FIRST_WORD = 3  # the ids below are the three above

# keras Tokenizer's filters (tab and newline are among them) and its split at spaces; apostrophes stay.
_NORMALIZER = Lowercase()
_SPLITTER = Split(Regex(r"""[ \t\n!"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~]+"""), "removed")

_CHUNK = 1000  # texts handed to the tokenizer at once: bounds memory, moves the progress bar
_LONG = 5000  # texts from which a progress bar is worth its space

# Loader workers are forked after the tokenizer's threads ran but never tokenize: no warning is due.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


class TextEncoder:
    """Turns texts into rows of ids: 0 padding, 1 start, 2 out of vocabulary, words from 3 on.

    Text is lowercased and split at spaces, tabs, newlines and punctuation other than the apostrophe. Each
    text begins with the start id; its last ``max_tokens`` ids are kept and shorter texts padded in front.

    Args:
        words: the vocabulary; ``words[k]`` has the id ``k + 3``.
        max_tokens: length T of every row.

    Source: ``keras.datasets.imdb.load_data`` and ``keras.preprocessing.text.Tokenizer``.
    """

    kind, usage = "texts", '"I did not expect to like it"'

    def __init__(self, words: Sequence[str], max_tokens: int) -> None:
        self.words, self.max_tokens = list(words), max_tokens
        ids = {word: k for k, word in enumerate(self.words, FIRST_WORD)}
        if len(ids) != len(self.words):
            raise ValueError("the vocabulary names a word twice, so its ids are not unique: give each word once")
        # Separators never get through, so "[UNK]" and "[PAD]" cannot be words of a text.
        self._tokenizer = Tokenizer(WordLevel({"[PAD]": PAD, "[UNK]": UNKNOWN, **ids}, unk_token="[UNK]"))
        self._tokenizer.normalizer, self._tokenizer.pre_tokenizer = _NORMALIZER, _SPLITTER
        self._tokenizer.enable_truncation(max_tokens, direction="left")
        self._tokenizer.enable_padding(direction="left", pad_id=PAD, pad_token="[PAD]", length=max_tokens)

    @classmethod
    def fit(cls, texts: Sequence[str], vocab_size: int, max_tokens: int) -> "TextEncoder":
        """Takes the ``vocab_size - 3`` most frequent words of ``texts``; the first seen wins a tie."""
        counts: Counter[str] = Counter()
        for text in _progress(texts, "Counting words", len(texts)):
            counts.update(word for word, _ in _SPLITTER.pre_tokenize_str(_NORMALIZER.normalize_str(text)))
        return cls([word for word, _ in counts.most_common(vocab_size - FIRST_WORD)], max_tokens)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encodes B texts as (B, ``max_tokens``) int64 ids.

        Raises:
            ValueError: a text holds no word; the message names its position.
            TypeError: ``texts`` is a bare string.
        """
        if isinstance(texts, str):
            raise TypeError("encode takes a list of texts: write encode([text]) for a single one")
        ids = torch.empty(len(texts), self.max_tokens, dtype=torch.int64)
        for start in _progress(range(0, len(texts), _CHUNK), "Encoding texts", len(texts)):
            rows = self._tokenizer.encode_batch_fast(list(texts[start : start + _CHUNK]))
            ids[start : start + len(rows)] = torch.tensor([row.ids for row in rows])
        padding = (ids == PAD).sum(1)
        for position, (text, filled) in enumerate(zip(texts, padding.tolist(), strict=True)):
            if filled == self.max_tokens or not text.strip():
                raise ValueError(
                    f"text {position} ({text!r}) holds no word, so there is nothing to encode: "
                    "give it at least one word, or leave it out"
                )
        short = padding.nonzero().flatten()  # in a longer text the start id has been cut off with the beginning
        ids[short, padding[short] - 1] = START
        return ids

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """What each id stands for; padding for nothing."""
        own = {PAD: "", START: "<start>", UNKNOWN: "<unk>"}
        return [own[k] if k < FIRST_WORD else self.words[k - FIRST_WORD] for k in map(int, ids)]

    def to_dict(self) -> dict[str, Any]:
        """Everything the encoder is, as plain types that ``torch.load(weights_only=True)`` accepts."""
        return {"kind": self.kind, "words": list(self.words), "max_tokens": self.max_tokens}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "TextEncoder":
        """The encoder that :meth:`to_dict` described."""
        return cls(state["words"], state["max_tokens"])


def _progress(items: Sequence[Any], description: str, texts: int) -> Iterable[Any]:
    console = Console(stderr=True)
    shown = texts >= _LONG and console.is_terminal
    return track(items, description, console=console, transient=True, disable=not shown)
