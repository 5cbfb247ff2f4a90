"""Which backend served the recurrent layers of a run, as the dispatch said at its first training step."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from seqnets import Recurrent, explain


class BackendReport(Callback):
    """Asks `seqnets.explain` once per recurrent layer.

    Attributes:
        backends: layer name -> backend.
    """

    def __init__(self) -> None:
        self.backends: dict[str, str] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, layer in pl_module.named_modules():
            if isinstance(layer, Recurrent):
                self._ask_at_first_call(name, layer)

    def _ask_at_first_call(self, name: str, layer: Recurrent) -> None:
        def ask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            handle.remove()
            self.backends[name] = explain(layer, *args, **kwargs).backend or "none"

        handle = layer.register_forward_pre_hook(ask, with_kwargs=True)

    def __str__(self) -> str:
        return ", ".join(sorted(set(self.backends.values()))) or "torch modules only"
