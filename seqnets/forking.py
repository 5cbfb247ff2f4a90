"""Detects forked child processes: neither OpenMP's threads nor the owners of held locks survive a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

FORKED = 0x40  # PF_FORKNOEXEC of Linux


def _was_forked() -> bool:
    """Tell whether this process was forked before it imported this library; False where the system is not Linux."""
    try:
        return bool(int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[6]) & FORKED)
    except (OSError, ValueError, IndexError):
        return False


forked = _was_forked()  # whether this process was forked and has not executed another program since


def after_fork(renew: Callable[[], None]) -> None:
    """Call `renew` in every forked child, to replace locks that another thread of the parent may have held."""
    if hasattr(os, "register_at_fork"):  # not on Windows, where there is no fork
        os.register_at_fork(after_in_child=renew)


class Lock:
    """Excludes other threads like `threading.RLock`, but is released in a forked child if another thread held it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        after_fork(self._renew)

    def _renew(self) -> None:
        held = self._lock._is_owned()  # type: ignore[attr-defined]
        self._lock = threading.RLock()
        if held:  # by the thread that forked, which is this one
            self._lock.acquire()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def acquire(self, seconds: float) -> bool:
        """Wait for the lock for at most `seconds`, and return whether it was acquired."""
        return self._lock.acquire(timeout=seconds)


def _note() -> None:
    global forked
    forked = True


after_fork(_note)
