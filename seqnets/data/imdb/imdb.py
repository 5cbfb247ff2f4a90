"""Provides the IMDB film reviews for training.

Maas et al., "Learning Word Vectors for Sentiment Analysis", ACL 2011.
"""

import logging
import os
from pathlib import Path

import numpy as np
import torch

from seqnets.data.cache import Arrays, cached
from seqnets.data.imdb.reviews import Reviews, Split
from seqnets.data.imdb.sources import check_choice, find_reviews
from seqnets.data.in_memory import InMemory, Loaded, check_integers
from seqnets.data.loader import Examples
from seqnets.data.text import FIRST_WORD, TextEncoder
from seqnets.errors import ConfigError, DataError
from seqnets.folders import cache_directory

log = logging.getLogger(__name__)

_FORMAT = 1  # version of the cached arrays: increment it when encoding or splitting changes


class IMDB(InMemory):
    """Provides film reviews as batches of ``(B, T)`` int64 ids and ``(B,)`` int64 labels, 0 negative and 1 positive.

    Args:
        path: a folder of Parquet files, the aclImdb tree, or Keras's imdb.npz. No other source is then tried.
        source: "local" (``path``, else ``$SEQNETS_DATA/imdb``), "hub", "package", or "auto" to try them in this order.
        vocab_size: the number of ids: padding, start, out of vocabulary, and the most frequent training words.
        max_tokens: the length T. The last ``max_tokens`` ids of a review are kept; shorter reviews are padded in front.
        batch_size: B in training.
        eval_batch_size: B in validation and test.
        validation_fraction: the part of the training split that is held out for validation, the same for every seed.
            Its words do not count for the vocabulary.
        num_workers: the number of loader processes. 0 is fastest, because the data are in memory.
        seed: determines the order of training, together with the epoch.
        cache_dir: the folder for the encoded reviews. If None, ``$SEQNETS_CACHE`` or else the user's cache folder.
        encoder: the encoder of a trained model, whose vocabulary then replaces that of the training reviews.

    Raises:
        ConfigError: If an argument is invalid.
        DataError: From ``prepare_data`` or ``setup``, if the reviews are missing, incomplete or damaged.
    """

    labels = ("negative", "positive")
    licence = "none stated by its authors, who ask to be cited (Maas et al., ACL 2011)"
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
        super().__init__(batch_size, eval_batch_size, validation_fraction, num_workers, seed)
        check_integers(vocab_size=(vocab_size, FIRST_WORD + 1), max_tokens=(max_tokens, 1))
        check_choice(path, source)
        self.path, self.source = path, source
        self.vocab_size, self.max_tokens = vocab_size, max_tokens
        self.cache_dir = cache_directory() if cache_dir is None else Path(cache_dir).expanduser()
        self._given = encoder

    def _load(self) -> Loaded:
        reviews = find_reviews(self.path, self.source)
        fingerprint = reviews.fingerprint()
        splits = self._split(reviews)
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
        examples = {
            name: Examples(torch.from_numpy(arrays[f"{name}_inputs"]), torch.from_numpy(split.labels))
            for name, split in splits.items()
        }
        provenance = {
            "source": reviews.source,
            "location": reviews.location,
            "rows": {name: len(data) for name, data in examples.items()},
            "fingerprint": fingerprint,
            "note": reviews.note,
        }
        return Loaded(examples, provenance)

    def _split(self, reviews: Reviews) -> dict[str, Split]:
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
