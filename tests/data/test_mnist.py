"""Digits: read from MNIST's files or scikit-learn, checked, and given out as rows of pixels."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seqnets.data import MNIST, ImageEncoder, ScikitDigits, encoder_from_dict
from seqnets.data.mnist import FILES
from seqnets.errors import ConfigError, DataError
from tests.data.synthetic import mnist

REAL = os.environ.get("SEQNETS_DATA")  # before fixtures hide it


def loaded(data):
    data.prepare_data()
    data.setup("fit")
    return data


def test_digits_are_rows_of_pixels_from_0_to_1(tmp_path, monkeypatch):
    data = loaded(MNIST(path=mnist(tmp_path / "mnist", monkeypatch), batch_size=8))
    batch = next(iter(data.train_dataloader()))
    assert batch.inputs.shape == (8, 28, 28) and batch.inputs.dtype == torch.float32
    assert batch.inputs.min() >= 0 and batch.inputs.max() <= 1 and batch.targets.dtype == torch.int64
    assert data.provenance()["rows"] == {"train": 40, "test": 20}
    assert sum(len(b.targets) for b in data.test_dataloader()) == 20
    assert data.val_dataloader() == []


def test_a_part_is_held_out_the_same_for_every_seed(tmp_path, monkeypatch):
    folder = mnist(tmp_path / "mnist", monkeypatch)
    held = []
    for seed in (0, 1):
        data = loaded(MNIST(path=folder, validation_fraction=0.25, seed=seed))
        assert data.provenance()["rows"] == {"train": 30, "validation": 10, "test": 20}
        held.append(torch.cat([b.inputs for b in data.val_dataloader()]))
    assert torch.equal(*held)


@pytest.mark.parametrize("place", ["raw", "MNIST/raw"])
def test_torchvision_keeps_them_in_a_folder_further_down(place, tmp_path, monkeypatch):
    mnist(tmp_path / place, monkeypatch)
    assert loaded(MNIST(path=tmp_path)).provenance()["rows"]["train"] == 40


def test_files_that_are_not_mnists_are_refused(tmp_path, monkeypatch):
    folder = mnist(tmp_path / "mnist", monkeypatch)
    name = next(iter(FILES))
    file = folder / f"{name}.gz"
    content = file.read_bytes()
    for wrong, told in ((content[:-20], "cannot be read"), (b"no gzip", "cannot be read")):
        file.write_bytes(wrong)
        with pytest.raises(DataError, match=told):
            loaded(MNIST(path=folder))
    file.unlink()
    (folder / name).write_bytes(b"\0\0\x08\x01\0\0\0\0")
    with pytest.raises(DataError, match="is not the file that is published: its content has the SHA-256"):
        loaded(MNIST(path=folder))
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"lacks {name}"):
        loaded(MNIST(path=folder))


def test_without_mnist_it_is_said_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"(?s)lacks train-images-idx3-ubyte: download http.*data=digits"):
        loaded(MNIST(path=tmp_path))
    with pytest.raises(DataError, match=r"(?s)any one of these would do.*Set SEQNETS_DATA.*download: .*data=digits"):
        loaded(MNIST())
    monkeypatch.setenv("SEQNETS_DATA", str(tmp_path))
    with pytest.raises(DataError, match="there is no folder mnist"):
        loaded(MNIST(source="local"))


def test_a_part_that_leaves_nothing_is_refused(tmp_path, monkeypatch):
    folder = mnist(tmp_path / "mnist", monkeypatch)
    with pytest.raises(ConfigError, match="splits 40 images into 40 and 0"):
        loaded(MNIST(path=folder, validation_fraction=0.001))


def test_wrong_arguments_are_refused():
    for arguments in (
        {"source": "disk"},
        {"source": "download", "path": "x"},
        {"batch_size": 0},
        {"validation_fraction": 1.0},
    ):
        with pytest.raises(ConfigError):
            MNIST(**arguments)


def test_scikit_learn_has_small_ones():
    pytest.importorskip("sklearn")
    data = loaded(ScikitDigits(batch_size=10))
    assert data.provenance()["rows"] == {"train": 1497, "test": 300}
    assert next(iter(data.train_dataloader())).inputs.shape == (10, 8, 8)
    assert data.example().inputs.shape == (1, 8, 8)


def test_image_files_become_what_digits_are(tmp_path):
    pixels = np.zeros((56, 56), np.uint8)
    pixels[20:36, 20:36] = 255
    for name, values in (("dark.png", pixels), ("light.png", 255 - pixels)):
        Image.fromarray(values).save(tmp_path / name)
    encoder = encoder_from_dict(ImageEncoder(28).to_dict())
    dark, light = encoder.encode([str(tmp_path / "dark.png"), str(tmp_path / "light.png")])
    assert dark.shape == (28, 28) and torch.allclose(dark, light, atol=0.01)
    assert dark[0, 0] == 0 and dark[14, 14] == 1
    (tmp_path / "no.png").write_text("no image")
    with pytest.raises(ValueError, match="no image that can be read"):
        encoder.encode([str(tmp_path / "no.png")])


@pytest.mark.skipif(REAL is None or not Path(REAL, "mnist").exists(), reason="SEQNETS_DATA has no real digits")
def test_the_real_digits():
    data = loaded(MNIST(path=Path(REAL, "mnist")))
    assert data.provenance()["rows"] == {"train": 60_000, "test": 10_000}
    pixels = next(iter(data.train_dataloader())).inputs
    assert 0.1 < pixels.mean() < 0.16
