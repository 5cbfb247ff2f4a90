"""Converts texts to ids of characters or of words, and back."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

END, UNKNOWN = "<eos>", "<unk>"


class CharacterEncoder:
    """Encodes each character as a token.

    Args:
        characters: the vocabulary; the k-th character has the id k.
    """

    kind, usage = "characters", '"ROMEO:"'

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self._ids = {character: k for k, character in enumerate(characters)}

    @classmethod
    def fit(cls, text: str, vocab_size: int) -> "CharacterEncoder":
        """Fit an encoder to all characters of `text`.

        Raises:
            ValueError: If there are more than `vocab_size` different characters.
        """
        characters = "".join(sorted(set(text)))
        if len(characters) > vocab_size:
            raise ValueError(f"the text has {len(characters)} characters: set data.vocab_size={len(characters)}")
        return cls(characters)

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode B texts of equal length as ``(B, T)`` ids.

        Raises:
            ValueError: If a character is not in the vocabulary. The message names it.
        """
        for text in texts:
            if unknown := sorted(set(text) - self._ids.keys()):
                raise ValueError(f"{text[:60]!r} has {unknown[0]!r}, which the training text has not: leave it out")
        return torch.tensor([[self._ids[character] for character in text] for text in texts])

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self.characters[k] for k in ids]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.characters[k] for k in ids)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "characters": self.characters}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "CharacterEncoder":
        return cls(state["characters"])


class WordEncoder:
    """Encodes each word between spaces and the end of each line as a token, and unknown words as ``<unk>``.

    Args:
        words: the vocabulary, ``<eos>`` and ``<unk>`` included; the k-th word has the id k.

    Raises:
        ValueError: If ``<eos>`` or ``<unk>`` is missing.
    """

    kind, usage = "words", '"the company said"'

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._ids = {word: k for k, word in enumerate(self.words)}
        if missing := [word for word in (END, UNKNOWN) if word not in self._ids]:
            raise ValueError(f"the vocabulary lacks {' and '.join(missing)}")

    @classmethod
    def fit(cls, text: str, vocab_size: int) -> "WordEncoder":
        """Fit an encoder to ``<eos>``, ``<unk>`` and the other most frequent words of `text`, `vocab_size` in all.

        Of equally frequent words, the first seen comes first.
        """
        counts = Counter(_words(text))
        words = [END, UNKNOWN, *(word for word, _ in counts.most_common() if word not in (END, UNKNOWN))]
        return cls(words[:vocab_size])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode B texts with the same number of words as ``(B, T)`` ids.

        The end of a text gets an ``<eos>`` only if it has a newline.

        Raises:
            ValueError: If a text has no word.
        """
        rows = [[self._ids.get(word, self._ids[UNKNOWN]) for word in _words(text)] for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise ValueError(f"{text!r} has no word: give it at least one")
        return torch.tensor(rows)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self.words[k] for k in ids]

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join("\n" if self.words[k] == END else self.words[k] for k in ids).replace(" \n ", "\n")

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "words": list(self.words)}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "WordEncoder":
        return cls(state["words"])


def _words(text: str) -> list[str]:
    return text.replace("\n", f" {END} ").split()
