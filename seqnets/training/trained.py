"""A trained model, rebuilt from its checkpoint alone.

The checkpoint may come from someone else, and its configuration names what to call: only classes of modules, data
modules and optimizers that are defined in seqnets or torch are called, and `seqnets.cells.get_cell`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn

from seqnets.cells import get_cell
from seqnets.data import TextEncoder
from seqnets.errors import CheckpointError
from seqnets.training.checkpoint_io import read_checkpoint
from seqnets.training.config import build

TRUSTED_PREFIXES = ("seqnets.", "torch.nn.", "torch.optim.")
TRUSTED_BASES = (nn.Module, LightningDataModule, torch.optim.Optimizer)


@dataclass(frozen=True)
class Trained:
    """What a checkpoint of `train` holds.

    Attributes:
        path: the file.
        task: the LightningModule with the trained weights, in eval mode, on the CPU.
        encoder: text -> (B, T) int64 ids, as in training.
        labels: the names of the classes, by target.
        config: the run's configuration, plain.
        data: where the data came from.
    """

    path: Path
    task: LightningModule
    encoder: TextEncoder
    labels: tuple[str, ...]
    config: dict[str, Any]
    data: dict[str, Any]

    @torch.inference_mode()
    def probabilities(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """(B, classes) probabilities of each text.

        Raises:
            ValueError: a text holds no word; the message names it.
        """
        ids = self.encoder.encode(list(texts)).split(batch_size)
        return torch.cat([self.task.probabilities(batch) for batch in ids])  # type: ignore[operator]


def load_trained(path: Path) -> Trained:
    """The model in the checkpoint `path`, with all that predicting needs. Its backend is chosen anew for this machine.

    Raises:
        CheckpointError: it is missing, damaged or not of this project's training, or it asks for a class that is not trusted.
    """
    checkpoint = read_checkpoint(path)
    content = checkpoint["seqnets"]
    config = content["config"]
    network = _any_backend(config["model"]["net"])
    for node in (network, config["task"], config["optimizer"]):
        refuse_untrusted(node, path)
    model = build(network, "model.net")
    task = build(config["task"], "task", model=model, optimizer=build(config["optimizer"], "optimizer"))
    try:
        task.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its weights do not fit its own configuration: {error}") from error
    encoder = TextEncoder.from_dict(content["encoder"])
    return Trained(path, task.eval(), encoder, tuple(content["labels"]), config, content["data"])


def refuse_untrusted(node: Any, path: Path) -> None:
    """Nothing, if everything that instantiating `node` would call is trusted.

    Raises:
        CheckpointError: something is not.
    """
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        refuse_untrusted(child, path)
    if not isinstance(node, dict) or "_target_" not in node:
        return
    target = str(node["_target_"])
    if target.startswith(TRUSTED_PREFIXES):
        # a dotted path can also lead through a module into whatever it imports: look at what lies at its end
        found = get_object(target)
        ours = str(getattr(found, "__module__", "")).startswith(TRUSTED_PREFIXES)
        if found is get_cell or (ours and isinstance(found, type) and issubclass(found, TRUSTED_BASES)):
            return
    raise CheckpointError(
        f"{path} asks for {target} to be called, but from a checkpoint only modules of seqnets and torch.nn are built: "
        "a checkpoint that needs more is loaded in Python, by code you trust"
    )


def _any_backend(node: Any) -> Any:
    """`node` without the backends it was trained on: they may not exist here, and the weights do not depend on them."""
    if isinstance(node, dict):
        return {k: None if k == "backend" else _any_backend(v) for k, v in node.items()}
    return [_any_backend(v) for v in node] if isinstance(node, list) else node
