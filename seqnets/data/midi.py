"""Converts piano rolls to notes and to MIDI files."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from seqnets.optional import needed

LOWEST, KEYS = 21, 88  # a piano's notes have the MIDI numbers 21 to 108

TICKS = 480  # per quarter note
ORGAN = 19  # the instrument's number in General MIDI, counted from 0
VELOCITY = 72


class Note(NamedTuple):
    """Holds a note that sounds over consecutive steps.

    Attributes:
        start: the first step, counted from 0.
        steps: the number of steps.
        pitch: the MIDI number of the note.
    """

    start: int
    steps: int
    pitch: int


def notes_of(roll: Tensor) -> list[Note]:
    """Return the notes of a piano roll ``(T, 88)`` by start and pitch, where bit k is MIDI note 21 + k.

    A note that sounds in consecutive steps is one note: a roll does not distinguish held notes from repeated ones.
    """
    notes = []
    for key in roll.any(0).nonzero().flatten().tolist():
        on = [False, *roll[:, key].bool().tolist(), False]
        starts = [t for t in range(len(roll)) if on[t + 1] and not on[t]]
        ends = [t for t in range(1, len(roll) + 1) if on[t] and not on[t + 1]]
        notes += [Note(start, end - start, LOWEST + key) for start, end in zip(starts, ends, strict=True)]
    return sorted(notes, key=lambda note: (note.start, note.pitch))


def write_midi(roll: Tensor, file: Path, quarters_per_minute: float = 80) -> list[Note]:
    """Write a piano roll ``(T, 88)``, one quarter note per step, to a MIDI file, and return its notes.

    Raises:
        FileExistsError: If the file exists. It is left unchanged.
        OSError: If the file cannot be written.
        ConfigError: If mido is not installed.
    """
    mido = needed("mido", "writing a MIDI file")
    notes = notes_of(roll)
    # at the same time, ends sort before starts; the piece ends with its last step, silent or not
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
