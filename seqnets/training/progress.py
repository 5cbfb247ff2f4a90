"""Shows progress while a run trains: a bar on a terminal, and a line per epoch everywhere."""

import logging
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich import get_console

log = logging.getLogger(__name__)

DRAW_EVERY = 0.25  # seconds between updates; reading the loss waits for the GPU, so not at every step


class ProgressBar(RichProgressBar):
    """Shows Lightning's Rich bar with loss and accuracy, a few times a second, and never in a file or pipe."""

    def __init__(self) -> None:
        super().__init__(leave=False)
        self._drawn = 0.0
        console = get_console()
        if not (console.is_terminal or console.is_jupyter):
            self.disable()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        now = time.monotonic()
        if now - self._drawn >= DRAW_EVERY or trainer.is_last_batch:
            self._drawn = now
            super().on_train_batch_end(trainer, *args)

    def _get_train_description(self, current_epoch: int) -> str:
        return super()._get_train_description(current_epoch + 1)  # counts from 1, as the line of the epoch does

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = {}
        for name, value in super().get_metrics(trainer, pl_module).items():
            if name != "v_num" and not name.endswith("_epoch"):  # the line of the epoch has these
                shown[name.removeprefix("train/").removesuffix("_step")] = value
        return shown


class EpochReport(Callback):
    """Times the epochs and logs one line for each.

    Attributes:
        seconds: the time of each epoch that was trained from its first step to its last, without its validations and
            the checkpoint at its end.
    """

    logged = ("seconds_per_epoch",)

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start: float | None = None  # None in an epoch that resumed in its middle: its time would be meaningless
        self._validating_since = 0.0
        self._parts: tuple[str, ...] = ("train/",)  # those with metrics of this epoch: Lightning keeps older metrics

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _wait_for_device(pl_module)
        self._validating_since = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._parts = ("train/", "val/")
        if self._start is not None:
            self._start += time.perf_counter() - self._validating_since

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _wait_for_device(pl_module)
        took = ""
        if not trainer.is_last_batch:
            took = "  (not to its end)"
        elif self._start is not None:
            self.seconds.append(time.perf_counter() - self._start)
            took = f"  {self.seconds[-1]:.1f} s"
            pl_module.log("seconds_per_epoch", self.seconds[-1])
        self._start = None
        figures = "".join(
            f"  {name} {float(value):.4f}"
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith(self._parts)
            and not name.endswith(("_step", "_epoch"))  # the bare name has the epoch's mean
        )
        self._parts = ("train/",)
        of = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        log.info("epoch %d%s%s%s", trainer.current_epoch + 1, of, figures, took)


def _wait_for_device(module: LightningModule) -> None:
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
