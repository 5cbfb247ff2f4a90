"""Piano rolls as notes, and MIDI files that play them."""

import mido
import pytest
import torch

from seqnets.data.midi import KEYS, LOWEST, Note, notes_of, write_midi


def roll_of(steps):
    roll = torch.zeros(len(steps), KEYS, dtype=torch.uint8)
    for t, notes in enumerate(steps):
        roll[t, [note - LOWEST for note in notes]] = 1
    return roll


STEPS = [[60, 64], [60], [], [60, 108], [21, 108]]


def test_steps_that_follow_each_other_are_one_note():
    assert notes_of(roll_of(STEPS)) == [
        Note(0, 2, 60), Note(0, 1, 64), Note(3, 1, 60), Note(3, 2, 108), Note(4, 1, 21),
    ]  # fmt: skip
    assert notes_of(roll_of([[], []])) == []


def played(file):
    """What sounds in each quarter of a MIDI file."""
    midi, on, now, steps = mido.MidiFile(file), set(), 0, []
    for message in midi.tracks[0]:
        now += message.time
        steps += [sorted(on)] * (now // midi.ticks_per_beat - len(steps))
        if message.type == "note_on":
            on.add(message.note)
        elif message.type == "note_off":
            on.remove(message.note)
    assert not on
    return steps


@pytest.mark.parametrize("steps", [STEPS, [[60], []], [[], [60]], [[]]])
def test_a_midi_file_plays_the_roll_to_its_end(steps, tmp_path):
    write_midi(roll_of(steps), tmp_path / "new.mid", quarters_per_minute=120)
    assert played(tmp_path / "new.mid") == steps
    assert mido.MidiFile(tmp_path / "new.mid").length == pytest.approx(len(steps) / 2)


def test_a_file_is_never_overwritten(tmp_path):
    (tmp_path / "mine.mid").write_text("mine")
    with pytest.raises(FileExistsError):
        write_midi(roll_of(STEPS), tmp_path / "mine.mid")
    assert (tmp_path / "mine.mid").read_text() == "mine"
