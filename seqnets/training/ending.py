"""Ends a run on SIGINT, SIGTERM, SIGHUP or a closed pipe, once what it trained is in a checkpoint.

The first signal lets the current training step or validation batch finish. The run is then saved, and the process exits
with 128 plus the number of the signal, as is usual in shells: 130, 143, 129, and 141 for a closed pipe. A second signal
ends the run at once. Outside of training there is nothing to save, and the first signal ends the run at once.
"""

import logging
import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich import get_console

from seqnets.interrupts import CLOSED_PIPE, SIGNALS, has_no_reader, silence

log = logging.getLogger(__name__)


class Ending(Callback):
    """Handles signals while its context is open, and ends the run between steps as a callback.

    Attributes:
        asked: the number of the signal that came during training; None if there was none.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._training = False
        self._replaced: dict[int, Any] = {}

    def __enter__(self) -> "Ending":
        self._process = os.getpid()
        self._install()
        self._console = get_console()
        self._on_broken_pipe = self._console.on_broken_pipe
        self._console.on_broken_pipe = self._pipe_closed  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._console.on_broken_pipe = self._on_broken_pipe  # type: ignore[method-assign]

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may set handlers
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:  # keeps a signal ignored, as nohup does with SIGHUP
                self._replaced.setdefault(number, handler)
                signal.signal(number, self._signaled)

    def _signaled(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker: Ctrl-C reaches the run too, which ends its workers
            if number == signal.SIGINT:
                return
            raise SystemExit(128 + number)
        if number == getattr(signal, "SIGHUP", None):
            silence(os.isatty)  # the terminal is gone
        if not self._training or self.asked is not None:
            raise SystemExit(128 + number)
        self.asked = number
        name = signal.Signals(number).name
        with suppress(OSError, ValueError):
            log.info(
                "%s: the run ends once what is being computed is done and saved; a second one ends it at once", name
            )

    def _pipe_closed(self) -> None:
        """Handle a closed pipe: nobody reads the output any more, as in ``train.py … | head``."""
        silence(has_no_reader)
        if not self._training:
            raise SystemExit(128 + CLOSED_PIPE)
        self.asked = self.asked or CLOSED_PIPE

    # ---- between steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install()  # replaces Lightning's handler of SIGTERM, which ends a run with status 0
        self._training = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._end_if_saved(trainer)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
        if self.asked is not None and all(c.can_save(trainer) for c in callbacks if hasattr(c, "can_save")):
            raise SystemExit(128 + self.asked)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_if_saved(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = False
        if self.asked is not None:
            raise SystemExit(128 + self.asked)

    def _end_if_saved(self, trainer: Trainer) -> None:
        """Raise SystemExit if a signal came and every checkpoint callback has saved the last step.

        Nothing is saved while gradients accumulate, so the run may first continue up to its next optimizer step.
        """
        if self.asked is not None and all(
            c.saved_step == trainer.global_step
            for c in trainer.callbacks  # type: ignore[attr-defined]
            if hasattr(c, "saved_step")
        ):
            self._training = False
            raise SystemExit(128 + self.asked)


def ending_of(trainer: Trainer) -> int | None:
    """Return the number of the signal that asked the run to end; None if there was none."""
    return next((c.asked for c in trainer.callbacks if isinstance(c, Ending)), None)  # type: ignore[attr-defined]
