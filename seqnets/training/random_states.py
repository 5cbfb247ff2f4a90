"""Saves the states of all random number generators in checkpoints, so that a resumed run draws the same numbers.

The states must be restored at the right time, because starting a loader may draw (a DataLoader draws a seed for its
workers):

- A checkpoint at the end of an epoch is taken before the next epoch's loader starts. Its states are restored before
  Lightning starts the loader.
- A checkpoint in mid-epoch is taken after the loader has started. Its states are restored once Lightning has started
  the loader again, before the first step.
"""

import random
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from seqnets.tasks.position import batches_trained, saves_last_step, saves_mid_epoch


class States(NamedTuple):
    """Holds the states of Python's, NumPy's and torch's generators as these return them.

    Keeping their types makes taking them a matter of microseconds: they are taken at every step.
    """

    python: Any
    numpy: Any
    torch: Tensor
    cuda: list[Tensor]


def take_states() -> States:
    """Return the current states."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    # NPY002: libraries use NumPy's global generator
    return States(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)  # noqa: NPY002


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
    """Restore what `as_containers` returned. CUDA states are restored only if there are as many devices as then."""
    version, python, gauss = states["python"]
    random.setstate((version, tuple(python), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


class RandomStates(Callback):
    """Saves the random states with each checkpoint, and restores them on resume."""

    def __init__(self) -> None:
        self._at_epoch_end: dict[str, Any] | None = None
        self._in_mid_epoch: dict[str, Any] | None = None
        self._after_step = take_states()
        self._trained = 0  # batches trained when these states were taken

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._take(trainer)

    def _take(self, trainer: Trainer) -> None:
        """Keep the states, in case the next step or validation fails."""
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
