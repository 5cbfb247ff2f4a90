"""Ends a run on SIGINT, SIGTERM, SIGHUP or a closed pipe, once what it trained is in a checkpoint.

The first signal lets the step or the batch of a validation in flight finish; the run is then saved, and the process exits with
128 plus the signal's number, as shells count: 130, 143, 129, and 141 for a closed pipe. A second signal ends the run at once.
Outside of training there is nothing to save, and the first signal does.
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

from seqnets.interrupts import CLOSED_PIPE, has_no_reader, silence

log = logging.getLogger(__name__)

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Ending(Callback):
    """A context in which signals end a run, and the callback that does so between steps.

    Attributes:
        asked: the number of the signal that came while a step was in flight; None where none did.
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
            return  # only the main thread may
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:  # as nohup has it
                self._replaced.setdefault(number, handler)
                signal.signal(number, self._signaled)

    def _signaled(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker: the run, which Ctrl-C reaches too, ends its workers
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
        """Whoever read the output is gone, as in ``train.py … | head``."""
        silence(has_no_reader)
        if not self._training:
            raise SystemExit(128 + CLOSED_PIPE)
        self.asked = self.asked or CLOSED_PIPE

    # ---- between steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._install()  # in place of Lightning's for SIGTERM, which ends a run with status 0
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
        """Raise, unless gradients are being accumulated that no checkpoint holds."""
        if self.asked is not None and all(
            c.saved_step == trainer.global_step
            for c in trainer.callbacks  # type: ignore[attr-defined]
            if hasattr(c, "saved_step")
        ):
            self._training = False
            raise SystemExit(128 + self.asked)


def ending_of(trainer: Trainer) -> int | None:
    """Return the number of the signal that asked the run to end; None where none did."""
    return next((c.asked for c in trainer.callbacks if isinstance(c, Ending)), None)  # type: ignore[attr-defined]
