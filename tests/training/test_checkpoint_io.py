import copy
import errno
import os
import pickle
import re
import resource
import shutil
from collections import OrderedDict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from seqnets.errors import CheckpointError
from seqnets.training.checkpoint_io import AtomicCheckpointIO, read_checkpoint, write_checkpoint

NODE = {"_target_": "torch.nn.Linear"}
CONTENT = {
    "state_dict": {"w": torch.arange(20_000.0)},
    "global_step": 1,
    "optimizer_states": [],
    "random_states": {},
    "loops": {"fit_loop": {"epoch_progress": {"current": {"processed": 1}}}},
    "seqnets": {
        "config": {"seed": 0, "model": {"net": NODE}, "task": NODE, "optimizer": NODE, "data": NODE},
        "encoder": {},
        "labels": ["negative", "positive"],
        "data": {"source": "local", "location": "here", "rows": {}, "fingerprint": "1"},
    },
}


@pytest.fixture
def file(tmp_path):
    write_checkpoint(CONTENT, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def assert_intact(file):
    assert torch.equal(read_checkpoint(file)["state_dict"]["w"], CONTENT["state_dict"]["w"])
    assert os.listdir(file.parent) == [file.name]


def test_only_plain_things_are_written(tmp_path):
    content = CONTENT | {
        "mapping": OrderedDict(a=1),
        "omega": OmegaConf.create({"a": [1, "${..b}"], "b": 2}),
        "numpy": np.float64(0.5),
        "array": np.arange(3),
        "version": torch.__version__,  # a subclass of str
        "path": Path("runs/x"),
        "tuple": (1, None, True),
    }
    write_checkpoint(content, tmp_path / "new" / "a.ckpt")
    read = read_checkpoint(tmp_path / "new" / "a.ckpt")
    assert type(read["mapping"]) is dict
    assert (read["omega"], read["numpy"], read["path"]) == ({"a": [1, 2], "b": 2}, 0.5, "runs/x")
    assert type(read["version"]) is str
    assert read["array"].tolist() == [0, 1, 2]
    assert read["tuple"] == (1, None, True)


def test_what_is_not_plain_is_refused_by_its_place(file):
    with pytest.raises(CheckpointError, match=r"functools.partial under 'callbacks.0.mine'"):
        write_checkpoint(CONTENT | {"callbacks": [{"mine": partial(print)}]}, file)
    assert_intact(file)


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_failure_while_writing_leaves_the_previous_one(at, file, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, at, full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*previous one is intact"):
        write_checkpoint({"state_dict": {}}, file)
    monkeypatch.undo()
    assert_intact(file)


def test_a_full_disk_is_named(file, monkeypatch):
    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    message = f"the disk of {re.escape(str(file.parent.absolute()))} is full: 0 MiB are free.*previous one is intact"
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint({"state_dict": {}}, file)
    monkeypatch.undo()
    assert_intact(file)


def test_a_file_that_cannot_grow_leaves_the_previous_one(file):
    """As on a full disk, in torch's own writer: half the checkpoint gets to the file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="could not be written.*previous one is intact"):
            AtomicCheckpointIO().save_checkpoint(CONTENT, file)
        with pytest.raises(CheckpointError, match="could not be written.*none is kept"):
            AtomicCheckpointIO().save_checkpoint(CONTENT, file.with_name("first.ckpt"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_intact(file)


def test_what_a_kill_left_is_overwritten(file):
    file.with_name(".last.ckpt.unfinished").write_bytes(b"half a checkpoint")
    write_checkpoint(CONTENT, file)
    assert_intact(file)


@pytest.mark.parametrize("kept", [0, 1, 100, 40_000, -1])
def test_a_truncated_file_is_refused(kept, file):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="cannot be read|damaged"):
        read_checkpoint(file)


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.9])
def test_a_flipped_byte_is_refused(part, file):
    content = bytearray(file.read_bytes())
    content[int(len(content) * part)] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_checkpoint(file)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


def test_nothing_is_run_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(CONTENT | {"more": Attack()}, tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps(Attack()))
    for name, message in {"a.ckpt": "could run any code", "b.ckpt": "no checkpoint"}.items():
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "attacked").exists()


def test_what_is_not_ours_or_not_there(file, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "theirs.ckpt")
    with pytest.raises(
        CheckpointError, match="not written by train.py: it has no global_step, optimizer_states, random_states, loops"
    ):
        read_checkpoint(tmp_path / "theirs.ckpt")
    torch.save(torch.ones(2), tmp_path / "theirs.ckpt")
    with pytest.raises(CheckpointError, match="not written by train.py"):
        read_checkpoint(tmp_path / "theirs.ckpt")
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*did you mean .*last\.ckpt"):
        read_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match=r"a folder, not a checkpoint; did you mean .*last\.ckpt"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "place", ["loops.fit_loop", "seqnets.config", "seqnets.config.model.net", "seqnets.encoder", "seqnets.data.rows"]
)
def test_what_is_almost_ours_is_refused_by_what_it_lacks(place, tmp_path):
    content = copy.deepcopy(CONTENT)
    *parents, last = place.split(".")
    inner = content
    for key in parents:
        inner = inner[key]
    for wrong in ("another type", None):
        inner[last] = wrong
        torch.save(content, tmp_path / "a.ckpt")
        with pytest.raises(CheckpointError, match=f"not written by train.py: it has no {place}"):
            read_checkpoint(tmp_path / "a.ckpt")
