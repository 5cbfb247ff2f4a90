"""Small facts that are kept between processes."""

import json
import logging

import pytest
import torch

from seqnets.kernels import availability, store


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_facts_are_kept_by_all_of_their_key(folder):
    key = {"gpu": "here", "dtype": torch.float16}
    assert store.read("check", key, lambda value: value) is None
    store.write("check", key, {"why": None})
    assert store.read("check", key, lambda value: value) == {"why": None}
    assert store.read("plan", key, lambda value: value) is None
    assert store.read("check", key | {"gpu": "there"}, lambda value: value) is None
    store.write("check", key, [1, 2])
    assert store.read("check", key, lambda value: value) == [1, 2]
    (path,) = folder.rglob("*.json")
    assert json.loads(path.read_text())["key"] == {"gpu": "here", "dtype": "torch.float16"}
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\xff"])
def test_a_damaged_file_is_reported_and_found_out_again(text, folder, caplog):
    store.write("check", {"a": 1}, "kept")
    (path,) = folder.rglob("*.json")
    path.write_text(text, encoding="latin-1")
    with caplog.at_level(logging.WARNING):
        assert store.read("check", {"a": 1}, lambda value: value) is None
    assert str(path) in caplog.text
    assert "found out again" in caplog.text


def test_a_folder_that_cannot_be_written_is_done_without(folder, caplog):
    folder.write_text("a file is in the way")
    with caplog.at_level(logging.WARNING):
        store.write("check", {"a": 1}, "lost")
    assert "cannot be written" in caplog.text


def test_facts_are_about_the_versions_and_the_source_of_the_kernels():
    around = store.environment(torch.device("cpu"))
    assert around["gpu"] == "interpreter"
    assert around["torch"] == torch.__version__
    assert around["triton"] == availability.triton_version()
    assert len(around["kernels"]) == 64
