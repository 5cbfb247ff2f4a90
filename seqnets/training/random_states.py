"""The states of all random number generators travel in the checkpoint, so that a resumed run draws what it would have.

When they are put back matters, because starting a loader may draw (a DataLoader takes one number for its workers' seed):

- a checkpoint of an epoch's end was taken before the next epoch's loader starts: put back before Lightning starts it;
- a checkpoint in mid-epoch was taken after: put back once Lightning has started it again, before the first step.
"""

import random
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from seqnets.tasks.position import batches_trained, saves_last_step, saves_mid_epoch


class States(NamedTuple):
    """The states of Python's, NumPy's and torch's generators, as these give them: taken at every step, so in microseconds."""

    python: Any
    numpy: Any
    torch: Tensor
    cuda: list[Tensor]


def take_states() -> States:
    """Return the states as they are now."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return States(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)  # noqa: NPY002  libraries use the global one


def as_containers(states: States) -> dict[str, Any]:
    """Return the states as plain containers and tensors."""
    (version, python, gauss), numpy = states.python, states.numpy
    return {
        "python": [version, list(python), gauss],
        "numpy": [numpy[0], numpy[1].tolist(), *numpy[2:]],
        "torch": states.torch,
        "cuda": states.cuda,
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Put back what `as_containers` returned; CUDA's only where there are as many devices as then."""
    version, python, gauss = states["python"]
    random.setstate((version, tuple(python), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


class RandomStates(Callback):
    """Saves the random states with each checkpoint and restores them on resume."""

    def __init__(self) -> None:
        self._at_epoch_end: dict[str, Any] | None = None
        self._in_mid_epoch: dict[str, Any] | None = None
        self._after_step = take_states()
        self._trained = 0  # batches, when these states were taken

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._take(trainer)

    def _take(self, trainer: Trainer) -> None:
        """Keep the states, should the next step or validation fail."""
        self._after_step, self._trained = take_states(), batches_trained(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        taken = saves_last_step(trainer) and self._trained == batches_trained(trainer)
        states = self._after_step if taken else take_states()
        checkpoint["random_states"] = {**as_containers(states), "mid_epoch": saves_mid_epoch(trainer)}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        states = checkpoint["random_states"]
        if states["mid_epoch"]:
            self._in_mid_epoch = states
        else:
            self._at_epoch_end = states

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._at_epoch_end is not None:
            set_random_states(self._at_epoch_end)
            self._at_epoch_end = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._in_mid_epoch is not None:
            set_random_states(self._in_mid_epoch)
            self._in_mid_epoch = None
        self._take(trainer)
