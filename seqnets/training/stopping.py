"""Provides early stopping that a resumed run remembers."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping as LightningsEarlyStopping


class EarlyStopping(LightningsEarlyStopping):
    """Extends Lightning's EarlyStopping, with the same arguments.

    A run that it stopped does not train on if it is interrupted in its test and resumed.
    """

    stopped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.stopped:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        before = trainer.should_stop
        super().on_validation_end(trainer, pl_module)
        self.stopped |= trainer.should_stop and not before

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        before = trainer.should_stop
        super().on_train_epoch_end(trainer, pl_module)
        self.stopped |= trainer.should_stop and not before

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.stopped = state_dict["stopped"]
