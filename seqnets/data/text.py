"""Converts words to ids by the rules of Keras's IMDB data, so that metrics can be compared with Keras's."""

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
FIRST_WORD = 3  # smaller ids are the three special ones

# The filters of Keras's Tokenizer (tab and newline among them) and its split at spaces. Apostrophes are kept.
_NORMALIZER = Lowercase()
_SPLITTER = Split(Regex(r"""[ \t\n!"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~]+"""), "removed")

_CHUNK = 1000  # texts per call of the tokenizer: bounds memory, and sets how often the progress bar moves
_LONG = 5000  # the number of texts from which a progress bar is shown

# Loader workers are forked after the tokenizer's threads ran, but never tokenize: this avoids a needless warning.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


class TextEncoder:
    """Turns texts into rows of ids: 0 is padding, 1 start, 2 out of vocabulary, and words begin at 3.

    Text is lowercased and split at spaces, tabs, newlines and punctuation other than the apostrophe. Each text begins
    with the start id. Its last ``max_tokens`` ids are kept, and shorter texts are padded in front.

    Args:
        words: the vocabulary; ``words[k]`` has the id ``k + 3``.
        max_tokens: the length T of every row.

    Raises:
        ValueError: If a word occurs twice.

    Source: ``keras.datasets.imdb.load_data`` and ``keras.preprocessing.text.Tokenizer``.
    """

    kind, usage = "texts", '"I did not expect to like it"'

    def __init__(self, words: Sequence[str], max_tokens: int) -> None:
        self.words, self.max_tokens = list(words), max_tokens
        ids = {word: k for k, word in enumerate(self.words, FIRST_WORD)}
        if len(ids) != len(self.words):
            raise ValueError("the vocabulary names a word twice, so its ids are not unique: give each word once")
        # Separators are removed, so "[UNK]" and "[PAD]" cannot be words of a text.
        self._tokenizer = Tokenizer(WordLevel({"[PAD]": PAD, "[UNK]": UNKNOWN, **ids}, unk_token="[UNK]"))
        self._tokenizer.normalizer, self._tokenizer.pre_tokenizer = _NORMALIZER, _SPLITTER
        self._tokenizer.enable_truncation(max_tokens, direction="left")
        self._tokenizer.enable_padding(direction="left", pad_id=PAD, pad_token="[PAD]", length=max_tokens)

    @classmethod
    def fit(cls, texts: Sequence[str], vocab_size: int, max_tokens: int) -> "TextEncoder":
        """Fit an encoder to the ``vocab_size - 3`` most frequent words of ``texts``.

        Of equally frequent words, the first seen comes first.
        """
        counts: Counter[str] = Counter()
        for text in _progress(texts, "Counting words", len(texts)):
            counts.update(word for word, _ in _SPLITTER.pre_tokenize_str(_NORMALIZER.normalize_str(text)))
        return cls([word for word, _ in counts.most_common(vocab_size - FIRST_WORD)], max_tokens)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode B texts as ``(B, max_tokens)`` int64 ids.

        Raises:
            ValueError: If a text holds no word. The message names its position.
            TypeError: If ``texts`` is a bare string.
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
        short = padding.nonzero().flatten()  # a longer text has lost its start id with its beginning
        ids[short, padding[short] - 1] = START
        return ids

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return what each id stands for; an empty string for padding."""
        own = {PAD: "", START: "<start>", UNKNOWN: "<unk>"}
        return [own[k] if k < FIRST_WORD else self.words[k - FIRST_WORD] for k in map(int, ids)]

    def to_dict(self) -> dict[str, Any]:
        """Return everything that defines the encoder, as plain types that ``torch.load(weights_only=True)`` accepts."""
        return {"kind": self.kind, "words": list(self.words), "max_tokens": self.max_tokens}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "TextEncoder":
        """Rebuild the encoder that :meth:`to_dict` described."""
        return cls(state["words"], state["max_tokens"])


def _progress(items: Sequence[Any], description: str, texts: int) -> Iterable[Any]:
    console = Console(stderr=True)
    shown = texts >= _LONG and console.is_terminal
    return track(items, description, console=console, transient=True, disable=not shown)
