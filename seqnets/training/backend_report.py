"""Reports which backend served each recurrent layer of a run, as dispatched at the layer's first call in training."""

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from seqnets import Recurrent, explain

log = logging.getLogger(__name__)


class BackendReport(Callback):
    """Asks `seqnets.explain` once per recurrent layer which backend serves it.

    Attributes:
        backends: layer name -> backend; None before training starts.
    """

    def __init__(self) -> None:
        self.backends: dict[str, str] | None = None
        self._before: dict[str, str] = {}  # the backends of the run that this one resumes

    def state_dict(self) -> dict[str, Any]:
        return {"backends": self.backends or {}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["backends"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.backends = {}
        for name, layer in pl_module.named_modules():
            if isinstance(layer, Recurrent):
                self._ask_at_first_call(self.backends, name, layer)

    def _ask_at_first_call(self, backends: dict[str, str], name: str, layer: Recurrent) -> None:
        backends[name] = "none ran"

        def ask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            handle.remove()
            with torch.random.fork_rng():  # reading weights with dropout draws random numbers
                backends[name] = explain(layer, *args, **kwargs).backend or "none"
            if self._before.get(name, backends[name]) not in (backends[name], "none ran"):
                log.warning(
                    "%s was served by %s and is by %s now: the run ends near where it would have, not bitwise there; "
                    "model.backend=%s keeps to one", name, self._before[name], backends[name], self._before[name],
                )  # fmt: skip

        handle = layer.register_forward_pre_hook(ask, with_kwargs=True)

    def __str__(self) -> str:
        if self.backends is None:
            return "none ran"
        return ", ".join(sorted(set(self.backends.values()))) or "torch modules only"
