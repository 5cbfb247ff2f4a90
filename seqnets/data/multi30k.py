"""Provides Multi30k, captions of images in several languages.

Elliott, Frank, Sima'an and Specia, "Multi30K: Multilingual English-German Image Descriptions", 2016; French: Elliott,
Frank, Barrault, Bougares and Specia, 2017.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from seqnets.data.cache import Arrays, cached
from seqnets.data.files import File, find_files, fingerprint
from seqnets.data.in_memory import InMemory, Loaded, check_integers
from seqnets.data.loader import ResumableLoader, common_options
from seqnets.data.origins import check_choice
from seqnets.data.pairs import BySize, Pairs
from seqnets.data.sentences import BYTES, FIRST_SUBWORD, PAD, SentenceEncoder
from seqnets.errors import ConfigError, DataError
from seqnets.folders import cache_directory

log = logging.getLogger(__name__)

URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/{}.gz"
CHECKSUMS = {
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "train.fr": "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "val.fr": "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
    "test_2016_flickr.fr": "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6",
}
FILES = {name: File(checksum, URL.format(name)) for name, checksum in CHECKSUMS.items()}
SPLITS = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
USAGE = {  # by source language
    "en": '"A dog runs on the beach."',
    "de": '"Ein Hund läuft am Strand."',
    "fr": '"Un chien court sur la plage."',
}

_FORMAT = 2  # version of the cached arrays: increment it when the encoding changes


class Multi30k(InMemory):
    """Provides 29,000 training, 1,014 validation and 1,000 test captions in two languages.

    A batch holds inputs ``(B, S)``, the ids of the source sentences with `lengths` ``(B,)``, and targets ``(B, T)``,
    the ids of the target sentences, each with an end-of-sentence id. Rows are padded at the end with 0. In training,
    sentences of similar lengths share a batch.

    Args:
        path: the folder with the files, packed (.gz) or not, such as train.en.
        source: "local" (``path``, else ``$SEQNETS_DATA/multi30k``), "download", or "auto" to try them in this order.
        source_language, target_language: "en", "de" or "fr".
        vocab_size: the maximum number of ids of each language: padding, start, end, and subwords learned from the
            training split.
        batch_size, eval_batch_size, num_workers, seed: as `InMemory` takes them.
        cache_dir: the folder for the encoded sentences. If None, ``$SEQNETS_CACHE`` or else the user's cache folder.
        encoder: the encoder of a trained model, whose subwords then replace those of the training split.

    Raises:
        ConfigError: If an argument is invalid.
        DataError: From ``prepare_data`` or ``setup``, if files are missing, incomplete or damaged.
    """

    encoder: SentenceEncoder
    licence = "captions of Flickr30k: non-commercial research and education"

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        source: str = "auto",
        source_language: str = "en",
        target_language: str = "de",
        vocab_size: int = 5_000,
        batch_size: int = 64,
        eval_batch_size: int = 100,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
        encoder: SentenceEncoder | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, 0.0, num_workers, seed)
        check_integers(vocab_size=(vocab_size, FIRST_SUBWORD + len(BYTES)))
        check_choice(path, source, ("local", "download"))
        for name, language in (("source_language", source_language), ("target_language", target_language)):
            if language not in USAGE:
                raise ConfigError(f"{name} is {language!r}, but Multi30k is in {', '.join(USAGE)}: choose one of them.")
        if source_language == target_language:
            raise ConfigError(f"source_language and target_language are both {source_language}: choose two.")
        self.path, self.source = path, source
        self.languages = source_language, target_language
        self.vocab_size = vocab_size
        self.cache_dir = cache_directory() if cache_dir is None else Path(cache_dir).expanduser()
        self._given = encoder

    def train_dataloader(self) -> ResumableLoader:
        pairs = self._splits["train"]
        sizes = torch.stack([pairs.target_lengths, pairs.lengths], dim=1).numpy()
        sampler = BySize(sizes, self.batch_size, self.seed)
        return ResumableLoader(pairs, self.batch_size, sampler=sampler, **common_options(self.num_workers))

    def _load(self) -> Loaded:
        files = {
            f"{stem}.{language}": FILES[f"{stem}.{language}"] for stem in SPLITS.values() for language in self.languages
        }
        contents, origin = find_files("multi30k", files, self.path, self.source)
        key = {
            "format": _FORMAT,
            "files": fingerprint(contents),
            "languages": list(self.languages),
            "vocab_size": self.vocab_size,
            "encoder": None if self._given is None else self._given.to_dict(),
        }
        arrays = cached("multi30k", key, lambda: self._encode(contents, origin["location"]), self.cache_dir)
        self.encoder = SentenceEncoder.from_dict(json.loads(arrays["encoder"].tobytes()))
        splits = {
            name: Pairs(torch.from_numpy(arrays[f"{name}_source"]), torch.from_numpy(arrays[f"{name}_target"]), PAD)
            for name in SPLITS
        }
        rows = {name: len(pairs) for name, pairs in splits.items()}
        return Loaded(splits, origin | {"rows": rows, "fingerprint": key["files"]})

    def _encode(self, contents: Mapping[str, bytes], location: str) -> Arrays:
        log.info("Multi30k: encoding the sentences, once; they are kept in %s.", self.cache_dir)
        texts = {
            name: [_lines(contents[f"{stem}.{language}"]) for language in self.languages]
            for name, stem in SPLITS.items()
        }
        for name, (sources, targets) in texts.items():
            if len(sources) != len(targets):
                raise DataError(
                    f"{location}: {SPLITS[name]} has {len(sources)} lines of {self.languages[0]}, "
                    f"but {len(targets)} of {self.languages[1]}: they are no pairs; fetch both anew."
                )
        encoder = self._given or SentenceEncoder.fit(
            texts["train"][0], texts["train"][1], self.vocab_size, USAGE[self.languages[0]]
        )
        arrays = {"encoder": np.frombuffer(json.dumps(encoder.to_dict()).encode(), np.uint8)}
        for name, (sources, targets) in texts.items():
            arrays[f"{name}_source"] = encoder.encode(sources).numpy().astype(np.int32)
            arrays[f"{name}_target"] = encoder.encode(targets, "target").numpy().astype(np.int32)
        return arrays


def _lines(content: bytes) -> list[str]:
    """Split a file into its lines, stripped.

    ``str.splitlines`` would also split at characters that do not end a line.
    """
    return [line.strip() for line in content.decode().removesuffix("\n").split("\n")]
