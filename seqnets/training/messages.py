"""Routes messages during a run: this project's to the console and the run's log, Lightning's to the log."""

import logging
import warnings
from contextlib import ExitStack
from logging.handlers import MemoryHandler
from pathlib import Path

from rich import get_console

OURS = "seqnets"
OTHERS = ("lightning.pytorch", "lightning.fabric", "py.warnings")  # their warnings go to the console too


KNOWN = (  # warnings that are irrelevant to a run here
    "Experiment logs directory .* exists and is not empty",  # the run folder, which is claimed by then
    "Total length of `list` across ranks is zero",  # the data have no validation part: known and reported
    ".*does not have many workers",  # in memory a batch is one index operation: workers would slow it down
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # from Lightning's use of torch
)


class ConsoleHandler(logging.Handler):
    """Prints messages through Rich's console, which keeps a progress bar below them.

    Lines are not wrapped, so that logs can be searched.
    """

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        get_console().print(prefix + record.getMessage(), soft_wrap=True, markup=False, highlight=False)


class Messages(ExitStack):
    """Routes the messages while its context is open, and then restores the loggers.

    Messages are kept in memory until `write_to` names a file, because a run prepares its data before it has a folder.
    """

    def __enter__(self) -> "Messages":
        super().__enter__()
        console, warned = ConsoleHandler(), ConsoleHandler(logging.WARNING)
        self._kept = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
        for name in (OURS, *OTHERS):
            logger = logging.getLogger(name)
            self.callback(_restore, logger, logger.level, logger.propagate, logger.handlers)
            logger.setLevel(logging.INFO)
            logger.propagate = False  # Hydra prints whatever reaches the root logger
            logger.handlers = [console if name == OURS else warned, self._kept]
        self.enter_context(warnings.catch_warnings())
        for known in KNOWN:
            warnings.filterwarnings("ignore", message=known)
        logging.captureWarnings(True)
        self.callback(logging.captureWarnings, False)
        return self

    def write_to(self, file: Path) -> None:
        """Write all messages so far, and all that follow, to `file`."""
        handler = logging.FileHandler(file, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._kept.setTarget(handler)
        self._kept.close()  # flushes into the file
        for name in (OURS, *OTHERS):
            logger = logging.getLogger(name)
            logger.handlers = [handler if h is self._kept else h for h in logger.handlers]
        self.callback(handler.close)


def _restore(logger: logging.Logger, level: int, propagate: bool, handlers: list[logging.Handler]) -> None:
    logger.setLevel(level)
    logger.propagate, logger.handlers = propagate, handlers
