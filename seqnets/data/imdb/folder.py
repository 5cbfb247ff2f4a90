"""Reads reviews from a local folder, in the three forms in which IMDB is distributed."""

import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np

from seqnets.data.imdb.reviews import Reviews, Split
from seqnets.errors import DataError

# SHA-256 of the file that keras.datasets.imdb downloads. It holds pickles, which can run code: no other is opened.
KERAS_SHA256 = "69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f"


def read_folder(folder: Path) -> Reviews:
    """Read Parquet files, the aclImdb tree or Keras's imdb.npz, whichever ``folder`` holds.

    Raises:
        DataError: If it holds none of them, or one that is incomplete or damaged. The message names the file.
    """
    if folder.is_file() and folder.suffix == ".npz":
        return _read_keras(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give the one that holds the reviews, or leave the path out.")
    for inner in (folder, folder / "plain_text"):  # the hub's repository has them in plain_text
        if any(inner.glob("*.parquet")):
            return Reviews("local", str(inner), _read_parquet(inner, "train"), _read_parquet(inner, "test"))
    for inner in (folder, folder / "aclImdb"):
        if (inner / "train").is_dir() or (inner / "test").is_dir():
            return Reviews("local", str(inner), _read_tree(inner / "train"), _read_tree(inner / "test"))
    if (folder / "imdb.npz").is_file():
        return _read_keras(folder / "imdb.npz")
    raise DataError(
        f"{folder} holds no IMDB reviews. Put there either train.parquet and test.parquet (columns text, label), "
        "or the unpacked aclImdb (train/pos, train/neg, test/pos, test/neg), or Keras's imdb.npz with "
        "imdb_word_index.json."
    )


def _read_parquet(folder: Path, split: str) -> Split:
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = re.compile(rf"{split}(-\d+-of-(\d+))?\.parquet")
    files = sorted(file for file in folder.iterdir() if name.fullmatch(file.name))
    if not files:
        raise DataError(f"{folder} lacks the {split} split: put {split}.parquet (columns text, label) there.")
    shards = int(name.fullmatch(files[0].name)[2] or 1)  # type: ignore[index]
    if len(files) != shards:
        raise DataError(f"{folder} has {len(files)} files of the {split} split, which is {shards}: fetch it again.")
    texts, labels = [], []
    for file in files:
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file} is damaged or incomplete ({error}): fetch it again.") from error
        if missing := {"text", "label"} - set(table.column_names):
            raise DataError(
                f"{file} lacks the column {' and '.join(sorted(missing))} (it has {', '.join(table.column_names)}): "
                "the reviews belong in `text`, 0 or 1 in `label`."
            )
        texts += table["text"].to_pylist()
        labels += table["label"].to_pylist()
    return Split.checked(", ".join(map(str, files)), texts, labels)


def _read_tree(folder: Path) -> Split:
    texts: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(("neg", "pos")):
        files = sorted((folder / name).glob("*.txt"), key=lambda file: (len(file.name.split("_")[0]), file.name))
        if not files:
            raise DataError(f"{folder / name} holds no reviews (*.txt): unpack the whole archive.")
        # The original file names, <number>_<stars>.txt, count from 0: a gap means a partly unpacked archive.
        numbers = [int(match[1]) for file in files if (match := re.fullmatch(r"(\d+)_\d+\.txt", file.name))]
        if len(numbers) == len(files) <= max(numbers):
            raise DataError(
                f"{folder / name} is incomplete: {len(files):,} reviews, but numbers up to {max(numbers):,}. "
                "Unpack the whole archive."
            )
        for file in files:
            try:
                texts.append(file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{file} is not readable UTF-8 text ({error}): unpack the archive again.") from error
        labels += [label] * len(files)
    return Split.checked(str(folder), texts, labels)


def _read_keras(file: Path) -> Reviews:
    """Read Keras's imdb.npz, which lists words by rank. The word index beside it turns ranks back into text."""
    raw = file.read_bytes()
    if (found := hashlib.sha256(raw).hexdigest()) != KERAS_SHA256:
        raise DataError(
            f"{file} is not the file that Keras publishes (SHA-256 {found}, not {KERAS_SHA256}). It holds "
            "pickles, which could run any code, so it is not opened: fetch it again, or use the Parquet files."
        )
    index = file.with_name("imdb_word_index.json")
    try:
        words = {rank: word for word, rank in json.loads(index.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        raise DataError(f"{file} holds ranks, not words: put Keras's {index.name} beside it.") from None
    except (ValueError, AttributeError) as error:
        raise DataError(f"{index} is no JSON object of word: rank ({error}): fetch it again.") from error

    def split(name: str) -> Split:
        try:
            texts = [" ".join([words[rank] for rank in review]) for review in arrays[f"x_{name}"]]
        except KeyError as error:
            raise DataError(
                f"{index} has no word of rank {error}: fetch the one that belongs to {file.name}."
            ) from None
        return Split.checked(f"{file}, {name}", texts, arrays[f"y_{name}"].tolist())

    with np.load(io.BytesIO(raw), allow_pickle=True) as arrays:
        return Reviews("local", str(file), split("train"), split("test"))
