"""Writes the files of this folder: what users keep on disk, as a version of seqnets writes it.

# in a clone of that version
TRITON_INTERPRET=1 python -m tests.compatibility.write tests/compatibility/VERSION REVIEWS RUN

REVIEWS is a folder made by `parquet_folder` of tests/data, RUN a new folder of a run.
"""

import pickle
import sys
from pathlib import Path

import torch

import seqnets
from seqnets.training import load_trained, train
from tests.training.helpers import small_run

TEXTS = ["a superb film", "I didn't like it: 3/10"]


def write(folder: Path) -> None:
    """Write a module, a state, exported programs and a checkpoint, each with what it computes."""
    torch.manual_seed(0)
    layer = seqnets.LSTM(3, 4, num_layers=2, bidirectional=True)
    x = torch.randn(5, 2, 3)
    with torch.no_grad(), seqnets.use_backend("reference"):
        y, state = layer(x)
    torch.save({"x": x, "y": y, "weights": layer.state_dict()}, folder / "layer.pt")
    torch.save(layer, folder / "module.pt")
    torch.save(state, folder / "state.pt")
    (folder / "state.pickle").write_bytes(pickle.dumps(state))
    for backend in ("cpp", "aten", "triton"):
        layer.backend = backend
        program = torch.export.export(layer, (x,))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of the machine that writes
        torch.export.save(program, folder / f"{backend}.pt2")


def write_checkpoint(folder: Path, reviews: Path, run: Path) -> None:
    """Write the last checkpoint of a run, and what it predicts."""
    train(small_run(reviews, run, "trainer.max_epochs=1", "model.net.recurrent.hidden_size=3", "model.backend=aten"))
    checkpoint = run / "checkpoints" / "last.ckpt"
    (folder / "last.ckpt").write_bytes(checkpoint.read_bytes())
    trained = load_trained(checkpoint)
    torch.save(trained.task.probabilities(trained.encoder.encode(TEXTS)), folder / "probabilities.pt")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    write_checkpoint(*map(Path, sys.argv[1:]))
