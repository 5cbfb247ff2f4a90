"""Writes what a model of music composes as a MIDI file, and plots it beside a real piece."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from seqnets.analysis.style import new_figure, plain
from seqnets.data.midi import LOWEST, notes_of, write_midi
from seqnets.errors import ConfigError
from seqnets.optional import needed
from seqnets.tasks.sampling import check_sampling

log = logging.getLogger(__name__)

COLORS = ("#3b6fb6", "#d9822b")
OCTAVE = 12  # its multiples are the pitches of Cs: 60 is C4


class PianoRoll(Callback):
    """Writes ``sample.mid`` and ``piano_roll.png`` after the test.

    The picture shows the first piece of the test split above and the sample below.

    Args:
        folder: the folder of the files.
        length, temperature, seed: those of the sample, as `Polyphony.predict` takes them.

    Raises:
        ConfigError: If an argument is invalid, or mido, which writes the file, is not installed.
    """

    def __init__(self, folder: str, length: int = 64, temperature: float = 1.0, seed: int = 0) -> None:
        needed("mido", "callbacks.piano_roll")  # fails before the run, not at its end
        try:
            check_sampling(length, temperature, seed)
        except ValueError as error:
            raise ConfigError(f"callbacks.piano_roll: {error}") from error
        self.folder, self.length, self.temperature, self.seed = Path(folder), length, temperature, seed

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        sample = pl_module.compose(self.length, self.temperature, generator)  # type: ignore[operator]
        try:
            write_midi(sample, self.folder / "sample.mid")
        except FileExistsError as error:  # not this run's file: its metrics are worth more than the sample
            log.warning("%s exists and is not overwritten: there is no sample of this run", error.filename)
        real = trainer.datamodule.test_dataloader().dataset.__getitems__([0]).targets[0]  # type: ignore[attr-defined]
        temperature = "" if self.temperature == 1 else f", temperature {self.temperature:g}"
        pieces = {"a piece of the test data": real, f"composed by the model{temperature}": sample}
        plot_rolls(pieces, self.folder / "piano_roll.png")
        log.info("composed %d steps, drawn in piano_roll.png", self.length)


def plot_rolls(pieces: Mapping[str, Tensor], picture: Path) -> None:
    """Plot two piano rolls ``(T, 88)``, given by title, below each other as a PNG.

    They are cut to the shorter one, and to the pitches that occur.
    """
    steps = min(map(len, pieces.values()))
    notes = {title: notes_of(roll[:steps]) for title, roll in pieces.items()}
    pitches = [note.pitch for part in notes.values() for note in part] or [LOWEST]
    figure = new_figure(10, 6.2)
    for axes, (title, part), color in zip(
        figure.subplots(2, 1, sharex=True, sharey=True), notes.items(), COLORS, strict=True
    ):
        for note in part:
            times, pitch = (note.start + 0.08, note.steps - 0.16), (note.pitch - 0.4, 0.8)
            axes.broken_barh([times], pitch, color=color, linewidth=0)
        octaves = range(OCTAVE * (min(pitches) // OCTAVE), max(pitches) + OCTAVE, OCTAVE)
        axes.set_yticks(octaves, [f"C{pitch // OCTAVE - 1}" for pitch in octaves])
        axes.set(ylabel="pitch", xlim=(0, steps), ylim=(min(pitches) - 2, max(pitches) + 2))
        axes.set_title(title, loc="left", fontsize=11)
        plain(axes)
    axes.set_xlabel("quarter notes")
    figure.savefig(picture, dpi=150)
