"""What a model of music composes, to listen to and to look at beside a real piece."""

import logging
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from seqnets.data.midi import LOWEST, notes_of, write_midi
from seqnets.optional import needed

log = logging.getLogger(__name__)

REAL, COMPOSED = "#3b6fb6", "#d9822b"
C = 12  # notes to an octave; multiples of it are Cs, 60 is C4


class PianoRoll(Callback):
    """After the test writes ``sample.mid`` and ``piano_roll.png``: the test split's first piece above, the sample below.

    Args:
        folder: where to.
        length, temperature, seed: of the sample, as `Polyphony.answer` takes them.
    """

    def __init__(self, folder: str, length: int = 64, temperature: float = 1.0, seed: int = 0) -> None:
        needed("mido", "callbacks.piano_roll")  # before the run, not at its end
        self.folder, self.length, self.temperature, self.seed = Path(folder), length, temperature, seed

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        sample = pl_module.compose(self.length, self.temperature, generator)  # type: ignore[operator]
        write_midi(sample, self.folder / "sample.mid")
        real = trainer.datamodule.test_dataloader().dataset.__getitems__([0]).targets[0]  # type: ignore[attr-defined]
        temperature = "" if self.temperature == 1 else f", temperature {self.temperature:g}"
        draw_rolls(
            {"a piece of the test data": real, f"composed by the model{temperature}": sample},
            self.folder / "piano_roll.png",
        )
        log.info("composed %d steps: sample.mid and piano_roll.png", self.length)


def draw_rolls(pieces: dict[str, Tensor], picture: Path) -> None:
    """Draw piano rolls ``(T, 88)`` below each other, by title, on one scale of time and pitch, as a PNG."""
    figure = Figure(figsize=(10, 2.7 * len(pieces) + 0.4), layout="constrained")
    columns = figure.subplots(len(pieces), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    steps = min(map(len, pieces.values()))  # the whole of the shortest
    for axes, (title, roll), colour in zip(columns, pieces.items(), (REAL, COMPOSED), strict=True):
        _draw(axes, roll[:steps], colour)
        axes.set_title(title, loc="left", fontsize=11)
    columns[-1].set(xlabel="quarter notes", xlim=(0, steps))
    figure.savefig(picture, dpi=150)


def _draw(axes: Axes, roll: Tensor, colour: str) -> None:
    for note in notes_of(roll):
        axes.broken_barh([(note.start + 0.06, note.steps - 0.12)], (note.pitch - 0.42, 0.84), color=colour, linewidth=0)
    axes.set_ylabel("pitch")
    octaves = range(LOWEST + C - LOWEST % C, LOWEST + roll.shape[1], C)
    axes.set_yticks(octaves, [f"C{pitch // C - 1}" for pitch in octaves])
    axes.grid(axis="y", color="0.88")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
