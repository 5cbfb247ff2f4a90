"""Builds Lightning's Trainer from the configuration's ``trainer`` node."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from seqnets.errors import ConfigError
from seqnets.training.checkpoint_io import AtomicCheckpointIO
from seqnets.training.checkpoints import LastCheckpoint
from seqnets.training.config import build


def build_trainer(
    node: dict[str, Any], callbacks: list[Callback], loggers: list[Logger], folder: Path | None
) -> Trainer:
    """Build a Trainer that uses this project's checkpoint files, and `folder` for whatever else Lightning writes.

    Raises:
        ConfigError: If Lightning rejects an argument, or more than one process is asked for.
    """
    options = build(node, "trainer")
    # Lightning rejects a callback whose kind is switched off. Here such callbacks are dropped.
    if options["enable_progress_bar"] is False:
        callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
    if options["enable_checkpointing"] is False:
        callbacks = [c for c in callbacks if not isinstance(c, Checkpoint)]
    callbacks = sorted(callbacks, key=lambda c: isinstance(c, LastCheckpoint))  # last: it saves what the others compute
    options |= {
        "callbacks": callbacks,
        "logger": False if options["logger"] is False else loggers,
        "plugins": [AtomicCheckpointIO(), *(options["plugins"] or [])],
        "default_root_dir": options["default_root_dir"] or folder,
    }
    chatter = logging.getLogger("lightning.pytorch")
    level = chatter.level
    chatter.setLevel(logging.WARNING)
    try:
        trainer = Trainer(**options)
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"trainer: {error}") from error
    finally:
        chatter.setLevel(level)
    if trainer.world_size > 1:
        raise ConfigError(
            f"trainer.devices={options['devices']} asks for {trainer.world_size} processes; a run folder, "
            "its checkpoints and the order of the data belong to one: use trainer.devices=1 and one run per device"
        )
    return trainer
