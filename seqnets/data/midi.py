"""Piano rolls and the MIDI files that play them."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from seqnets.optional import needed

LOWEST, KEYS = 21, 88  # MIDI's numbers of a piano's notes: 21 to 108

TICKS = 480  # of a quarter note
ORGAN = 19  # the instrument, as General MIDI counts from 0
VELOCITY = 72


class Note(NamedTuple):
    """A note held over steps that follow each other."""

    start: int
    steps: int
    pitch: int


def notes_of(roll: Tensor) -> list[Note]:
    """The notes of a piano roll ``(T, 88)``, bit k being note 21 + k, by start and pitch.

    A note that sounds in steps that follow each other is one: a roll does not tell held notes from repeated ones.
    """
    notes = []
    for key in roll.any(0).nonzero().flatten().tolist():
        on = [False, *roll[:, key].bool().tolist(), False]
        starts = [t for t in range(len(roll)) if on[t + 1] and not on[t]]
        ends = [t for t in range(1, len(roll) + 1) if on[t] and not on[t + 1]]
        notes += [Note(start, end - start, LOWEST + key) for start, end in zip(starts, ends, strict=True)]
    return sorted(notes, key=lambda note: (note.start, note.pitch))


def write_midi(roll: Tensor, file: Path, quarters_per_minute: float = 80) -> list[Note]:
    """Writes a piano roll ``(T, 88)``, a quarter note to a step, as a MIDI file, and returns its notes.

    Raises:
        FileExistsError: there is such a file; it is left as it is.
        OSError: it cannot be written.
        ConfigError: mido is not installed.
    """
    mido = needed("mido", "writing a MIDI file")
    notes = notes_of(roll)
    # at one time ends come before starts; the end of the piece is its last step's, silent or not
    events = [(note.start + note.steps, 0, note.pitch) for note in notes] + [
        (note.start, 1, note.pitch) for note in notes
    ]
    track = mido.MidiTrack()
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(quarters_per_minute)))
    track.append(mido.Message("program_change", program=ORGAN))
    now = 0
    for time, on, pitch in sorted(events):
        kind = "note_on" if on else "note_off"
        track.append(mido.Message(kind, note=pitch, velocity=VELOCITY * on, time=(time - now) * TICKS))
        now = time
    track.append(mido.MetaMessage("end_of_track", time=(len(roll) - now) * TICKS))
    content = mido.MidiFile(ticks_per_beat=TICKS, tracks=[track])
    with file.open("xb") as opened:
        content.save(file=opened)
    return notes
