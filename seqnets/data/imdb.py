"""IMDB film reviews (Maas et al., "Learning Word Vectors for Sentiment Analysis", ACL 2011) to train on."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from seqnets.data.batch import Batch
from seqnets.data.cache import Arrays, cached
from seqnets.data.loader import EncodedTexts, ResumableLoader, eval_loader, train_loader
from seqnets.data.reviews import Reviews, Split
from seqnets.data.sources import check_choice, find_reviews
from seqnets.data.text import FIRST_WORD, TextEncoder
from seqnets.errors import ConfigError, DataError
from seqnets.folders import cache_directory

log = logging.getLogger(__name__)

_FORMAT = 1  # of what is cached: count up when encoding or splitting changes


class IMDB(LightningDataModule):
    """Film reviews, negative (0) or positive (1), as batches of (B, T) int64 ids and (B,) int64 labels.

    Args:
        path: a folder of Parquet files, the aclImdb tree, or Keras's imdb.npz; nothing else is then tried.
        source: "local" (``path``, else ``$SEQNETS_DATA/imdb``), "hub", "package", or "auto", the first of them.
        vocab_size: number of ids: padding, start, out of vocabulary, and the most frequent words of training.
        max_tokens: length T; the last ``max_tokens`` ids of a review are kept, shorter ones padded in front.
        batch_size: B in training.
        eval_batch_size: B in validation and test.
        validation_fraction: part of the training split kept for validation, the same for every seed; its
            words do not count for the vocabulary.
        num_workers: processes that load; 0 is fastest, as the data lies in memory.
        seed: with the epoch, decides the order of training.
        cache_dir: where the encoded reviews are kept; else ``$SEQNETS_CACHE``, else the user's cache folder.
        encoder: encodes with its vocabulary, a trained model's, rather than with that of the training reviews.

    Raises:
        ConfigError: an argument cannot work.
        DataError: from ``prepare_data`` or ``setup``; the reviews are missing, incomplete or damaged.
    """

    labels = ("negative", "positive")
    encoder: TextEncoder

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        source: str = "auto",
        vocab_size: int = 20_000,
        max_tokens: int = 200,
        batch_size: int = 32,
        eval_batch_size: int = 128,
        validation_fraction: float = 0.0,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
        encoder: TextEncoder | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("vocab_size", vocab_size, FIRST_WORD + 1),
            ("max_tokens", max_tokens, 1),
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} is {value!r}, but must be an integer of at least {least}.")
        if not 0 <= validation_fraction < 1:
            raise ConfigError(f"validation_fraction is {validation_fraction}, but must be at least 0 and below 1.")
        check_choice(path, source)
        self.path, self.source = path, source
        self.vocab_size, self.max_tokens = vocab_size, max_tokens
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.validation_fraction, self.num_workers, self.seed = validation_fraction, num_workers, seed
        self.cache_dir = cache_directory() if cache_dir is None else Path(cache_dir).expanduser()
        self._given = encoder
        self._data: dict[str, EncodedTexts] = {}
        self._provenance: dict[str, Any] = {}

    def prepare_data(self) -> None:
        """Finds, encodes and caches the reviews, once per machine."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Loads all splits; ``encoder`` and the loaders exist from here on."""
        if self._data:
            return
        reviews = find_reviews(self.path, self.source)
        fingerprint = reviews.fingerprint()
        splits = self._splits(reviews)
        key = {
            "format": _FORMAT,
            "reviews": fingerprint,
            "validation": self.validation_fraction,
            "vocab_size": self.vocab_size,
            "max_tokens": self.max_tokens,
            "words": None if self._given is None else self._given.words,
        }
        arrays = cached("imdb", key, lambda: self._encode(reviews, splits), self.cache_dir)
        self.encoder = TextEncoder(arrays["words"].tobytes().decode().split("\n"), self.max_tokens)
        self._data = {
            name: EncodedTexts(torch.from_numpy(arrays[f"{name}_inputs"]), torch.from_numpy(split.labels))
            for name, split in splits.items()
        }
        self._provenance = {
            "source": reviews.source,
            "location": reviews.location,
            "rows": {name: len(data) for name, data in self._data.items()},
            "fingerprint": fingerprint,
            "note": reviews.note,
        }

    def _splits(self, reviews: Reviews) -> dict[str, Split]:
        if not self.validation_fraction:
            return {"train": reviews.train, "test": reviews.test}
        train, validation = reviews.train.hold_out(self.validation_fraction)
        if not (train.texts and validation.texts):
            raise ConfigError(
                f"validation_fraction={self.validation_fraction} splits {len(reviews.train.texts)} reviews into "
                f"{len(train.texts)} and {len(validation.texts)}: choose one that leaves neither empty, or 0."
            )
        return {"train": train, "validation": validation, "test": reviews.test}

    def _encode(self, reviews: Reviews, splits: dict[str, Split]) -> Arrays:
        log.info("IMDB: encoding the reviews, once; they are kept in %s.", self.cache_dir)
        encoder = self._given or TextEncoder.fit(splits["train"].texts, self.vocab_size, self.max_tokens)
        arrays = {"words": np.frombuffer("\n".join(encoder.words).encode(), dtype=np.uint8)}
        for name, split in splits.items():
            try:
                arrays[f"{name}_inputs"] = encoder.encode(split.texts).numpy().astype(np.int32)
            except ValueError as error:
                raise DataError(f"{reviews.location}, {name} split: {error}.") from error
        return arrays

    def train_dataloader(self) -> ResumableLoader:
        return train_loader(self._data["train"], self.batch_size, self.seed, self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The validation loader, or an empty list, Lightning's way to say that there is none."""
        if "validation" not in self._data:
            return []
        return eval_loader(self._data["validation"], self.eval_batch_size, self.num_workers)

    def test_dataloader(self) -> DataLoader[Batch]:
        return eval_loader(self._data["test"], self.eval_batch_size, self.num_workers)

    def provenance(self) -> dict[str, Any]:
        """Source, location, rows per split, fingerprint (SHA-256 of the reviews) and note, as plain types."""
        return dict(self._provenance)
