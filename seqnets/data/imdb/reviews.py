"""Defines the reviews and splits that every source returns."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqnets.errors import DataError


@dataclass(frozen=True)
class Split:
    """Holds N reviews.

    Attributes:
        texts: the N texts.
        labels: ``(N,)`` int64, 0 for negative and 1 for positive.
    """

    texts: list[str]
    labels: np.ndarray

    @classmethod
    def checked(cls, where: str, texts: Sequence[Any], labels: Sequence[Any]) -> "Split":
        """Return a split after checking that its rows are reviews.

        Raises:
            DataError: If they are not. The message names ``where`` and the row.
        """
        if not len(texts):
            raise DataError(f"{where} holds no reviews: put the complete file there.")
        for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
            if not isinstance(text, str):
                raise DataError(f"{where}, row {row}: the text is {text!r}, where a string belongs.")
            if not isinstance(label, int) or label not in (0, 1):
                raise DataError(f"{where}, row {row}: the label is {label!r}, not 0 (negative) or 1 (positive).")
        return cls(list(texts), np.array(labels, dtype=np.int64))

    def hold_out(self, fraction: float) -> tuple["Split", "Split"]:
        """Hold out ``fraction`` of the reviews of each label: those with the smallest SHA-256.

        The choice depends on the texts alone, not on a seed or the order of the rows.

        Returns:
            The remaining reviews, and those held out.
        """
        hashes = [hashlib.sha256(text.encode()).digest() for text in self.texts]
        held = np.zeros(len(self.texts), dtype=bool)
        for label in (0, 1):
            rows = np.flatnonzero(self.labels == label)
            held[sorted(rows, key=hashes.__getitem__)[: round(fraction * len(rows))]] = True
        return self._where(~held), self._where(held)

    def _where(self, mask: np.ndarray) -> "Split":
        return Split([text for text, take in zip(self.texts, mask, strict=True) if take], self.labels[mask])


@dataclass(frozen=True)
class Reviews:
    """Holds a training split, a test split, and where they come from."""

    source: str
    location: str
    train: Split
    test: Split
    note: str = ""

    def fingerprint(self) -> str:
        """Return the SHA-256 of all texts and labels in order.

        Equal reviews have equal fingerprints, whatever file they were read from.
        """
        digest = hashlib.sha256()
        for split in (self.train, self.test):
            digest.update(f"{len(split.texts)};".encode())
            for text, label in zip(split.texts, split.labels.tolist(), strict=True):
                raw = text.encode()
                digest.update(f"{label},{len(raw)};".encode() + raw)
        return digest.hexdigest()
