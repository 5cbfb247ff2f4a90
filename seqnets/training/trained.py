"""Rebuilds a trained model from its checkpoint alone.

The checkpoint may come from someone else, and its configuration names what to call. Only classes of modules, data
modules and optimizers that are defined in seqnets or torch are called, and `seqnets.cells.get_cell`. A custom cell
(``"package.module:cell"``) is taken from a module that is already imported, or imported if the caller agrees.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from lightning.pytorch import LightningDataModule
from torch import nn

from seqnets import Mask
from seqnets.backends import autoselect
from seqnets.cells import get_cell
from seqnets.data import Encoder, encoder_from_dict
from seqnets.errors import CheckpointError
from seqnets.tasks import Prediction, Task
from seqnets.training.checkpoint_io import read_checkpoint
from seqnets.training.config import build
from seqnets.training.resuming import refuse_nonfinite

TRUSTED_PREFIXES = ("seqnets.", "torch.nn.", "torch.optim.")
MODEL: tuple[type, ...] = (nn.Module, torch.optim.Optimizer, Mask)
DATA: tuple[type, ...] = (LightningDataModule,)


@dataclass(frozen=True)
class Trained:
    """Holds what a checkpoint of `train` contains.

    Attributes:
        path: the file.
        task: the LightningModule with the trained weights, in eval mode, on the CPU.
        encoder: turns user input into model inputs, as in training.
        labels: the class names, indexed by target.
        config: the run's configuration, as plain containers.
        data: where the data came from.
    """

    path: Path
    task: Task
    encoder: Encoder
    labels: tuple[str, ...]
    config: dict[str, Any]
    data: dict[str, Any]

    @torch.inference_mode()
    def predict(self, given: Sequence[str], **options: Any) -> list[Prediction]:
        """Return the model's prediction for each input, such as a text or the name of an image file.

        Args:
            given: the inputs.
            options: those listed in ``task.options``.

        Raises:
            ValueError: If an input cannot be encoded, or an option is wrong. The message names it.
        """
        if unknown := options.keys() - self.task.options.keys():
            known = ", ".join(self.task.options) or "none"
            raise ValueError(
                f"{type(self.task).__name__} takes no {', '.join(sorted(unknown))}; its options are: {known}"
            )
        return self.task.predict(self.encoder, self.labels, given, **options)

    def plot(self, given: str, file: Path) -> None:
        """Plot the gates and states of all recurrent layers as they read `given`, and write the plot (PNG) to `file`.

        Raises:
            ValueError: If `given` cannot be encoded. The message names it.
        """
        from seqnets.analysis.inside import plot_inside, watch

        labels, inside = watch(self.task, self.encoder, given)
        plot_inside(labels, inside, given if len(given) < 100 else f"{given[:97]}…", file)


def load_trained(path: Path, trust_cells: bool = False) -> Trained:
    """Load the model in the checkpoint `path`, with everything that predicting needs.

    Its backends are those that automatic selection chose in training, where they can serve here.

    Args:
        path: the file.
        trust_cells: whether to import the modules of the cells that it names, which runs their code.

    Raises:
        CheckpointError: If the checkpoint is missing, damaged or not from this project's training, or asks for a class
            that is not trusted.
    """
    checkpoint = read_checkpoint(path)
    content = checkpoint["seqnets"]
    config = content["config"]
    network = _any_backend(config["model"]["net"])
    for node in (network, config["task"], config["optimizer"]):
        refuse_untrusted(node, path, MODEL, trust_cells)
    model = build(network, "model.net", nn.Module)
    optimizer = build(config["optimizer"], "optimizer")
    task = build(config["task"], "task", Task, model=model, optimizer=optimizer)
    try:
        task.load_state_dict(checkpoint["state_dict"])
        encoder = encoder_from_dict(content["encoder"])
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its weights or words do not fit its own configuration: {error}") from error
    refuse_nonfinite(path, task, task.state_dict())
    autoselect.adopt(content.get("verdicts", []))
    return Trained(path, task.eval(), encoder, tuple(content["labels"]), config, content["data"])


def refuse_untrusted(node: Any, path: Path, bases: tuple[type, ...], trust_cells: bool = False) -> None:
    """Raise unless `node` holds only dicts, lists and scalars, and instantiating it would call only what is trusted.

    Args:
        node: a part of the configuration in the checkpoint `path`.
        path: the checkpoint, for error messages.
        bases: what may be built: `MODEL`, which includes cells, or `DATA`.
        trust_cells: whether cells may import their modules.

    Raises:
        CheckpointError: If something is not trusted.
    """
    if isinstance(node, str):
        module, colon, _ = node.partition(":")
        if "${" in node:  # OmegaConf would resolve it later, to something that is not checked here
            raise CheckpointError(f"{path} has the interpolation {node!r}; a checkpoint of train.py is resolved")
        if colon and bases is MODEL and module not in sys.modules and not trust_cells:
            raise CheckpointError(
                f"{path} asks for {node!r}, which would run the code of the module {module}. If you trust it: "
                "predict.py --trust-cells, evaluate.py trust_cells=true, load_trained(path, trust_cells=True)"
            )
    elif isinstance(node, dict):
        for part in (*node.keys(), *node.values()):
            refuse_untrusted(part, path, bases, trust_cells)
        if "_target_" in node and not _trusted(str(node["_target_"]), bases):
            raise CheckpointError(
                f"{path} asks for {node['_target_']} to be called, but from a checkpoint only modules of seqnets and "
                "torch.nn are built: a checkpoint that needs more is loaded in Python, by code you trust"
            )
    elif isinstance(node, list):
        for part in node:
            refuse_untrusted(part, path, bases, trust_cells)
    elif not (node is None or isinstance(node, bool | int | float)):
        raise CheckpointError(f"{path} has a {type(node).__name__} in its configuration, where train.py writes none")


def _trusted(target: str, bases: tuple[type, ...]) -> bool:
    if not target.startswith(TRUSTED_PREFIXES):
        return False
    try:
        found = get_object(target)
    except Exception:  # whatever the lookup raises, there is no such class
        return False
    if found is get_cell:
        return bases is MODEL
    # a dotted path can also lead through a module into whatever it imports: check what it leads to
    ours = str(getattr(found, "__module__", "")).startswith(TRUSTED_PREFIXES)
    return ours and isinstance(found, type) and issubclass(found, bases)


def _any_backend(node: Any) -> Any:
    """Return `node` without the backends of training.

    They may not exist here, and the weights do not depend on them.
    """
    if isinstance(node, dict):
        return {k: None if k == "backend" else _any_backend(v) for k, v in node.items()}
    return [_any_backend(v) for v in node] if isinstance(node, list) else node
