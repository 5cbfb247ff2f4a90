"""Tests that files which older versions wrote, by `write.py`, are still read."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqnets
from seqnets.kernels.cpp.build import find_compiler
from seqnets.training import load_trained, train
from tests.compatibility.write import TEXTS
from tests.data.synthetic import parquet_folder
from tests.training.helpers import small_run

VERSIONS = sorted(folder.name for folder in Path(__file__).parent.iterdir() if (folder / "layer.pt").exists())


@pytest.fixture(params=VERSIONS)
def folder(request):
    return Path(__file__).parent / request.param


@pytest.fixture
def saved(folder):
    return torch.load(folder / "layer.pt", weights_only=True)


def test_weights(saved):
    layer = seqnets.LSTM(3, 4, num_layers=2, bidirectional=True)
    layer.load_state_dict(saved["weights"])
    torch.testing.assert_close(layer(saved["x"])[0], saved["y"])


def test_whole_modules(folder, saved):
    layer = torch.load(folder / "module.pt", weights_only=False)
    torch.testing.assert_close(layer(saved["x"])[0], saved["y"])


def test_states(folder, saved):
    state = torch.load(folder / "state.pt", weights_only=True)
    assert type(state) is seqnets.cells.lstm.State and state.h.shape == (4, 2, 4)
    same = pickle.loads((folder / "state.pickle").read_bytes())
    assert all(map(torch.equal, state, same))
    layer = torch.load(folder / "module.pt", weights_only=False)
    torch.testing.assert_close(tuple(layer(saved["x"])[1]), tuple(state))


@pytest.mark.skipif(torch.__version__ < "2.13", reason="the programs were exported by torch 2.13")
@pytest.mark.parametrize("backend", ["cpp", "aten", "triton"])
def test_exported_programs(backend, folder):
    """In a process of their own: a program finds its operators once seqnets is imported, and nothing else."""
    if backend == "cpp" and find_compiler() is None:
        pytest.skip("the operator compiles kernels, and there is no compiler")
    code = f"""
import sys, torch, seqnets
if {backend == "triton"} \
and (why := seqnets.explain(seqnets.LSTM(3, 4, backend="triton"), torch.ones(1, 1, 3)).reasons["triton"]):
    sys.exit(why)
saved = torch.load({str(folder / "layer.pt")!r}, weights_only=True)
program = torch.export.load({str(folder / f"{backend}.pt2")!r}).module()
torch.testing.assert_close(program(saved["x"])[0], saved["y"])
"""
    interpreted = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=interpreted)
    if done.returncode and "interpreter" in done.stderr.splitlines()[-1]:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr


def test_checkpoints(folder, tmp_path):
    file = folder / "last.ckpt"
    trained = load_trained(file)
    found = trained.task.probabilities(trained.encoder.encode(TEXTS))
    torch.testing.assert_close(found, torch.load(folder / "probabilities.pt", weights_only=True))
    # of another source, it is resumed where it says so
    small = ["model.net.recurrent.hidden_size=3", "model.backend=aten", f"ckpt_path={file}"]
    reviews = parquet_folder(tmp_path / "reviews")
    metrics, objects = train(small_run(reviews, tmp_path / "run", "trainer.max_epochs=2", *small))
    assert objects["trainer"].current_epoch == 2 and metrics["test/loss"] > 0
