"""Tells whether this process is a forked child: neither OpenMP's threads nor the owners of held locks survive a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

_forked = False


def is_forked() -> bool:
    """Tell whether this process was forked from one that had imported this library."""
    return _forked


def after_fork(renew: Callable[[], None]) -> None:
    """Have `renew` called in every forked child, to replace locks that another thread of the parent may have held."""
    if hasattr(os, "register_at_fork"):  # not on Windows, where there is no fork
        os.register_at_fork(after_in_child=renew)


class Lock:
    """A re-entrant lock, for ``with``, that is free in a forked child whichever thread of the parent held it."""

    def __init__(self) -> None:
        self._renew()
        after_fork(self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _note() -> None:
    global _forked
    _forked = True


after_fork(_note)
