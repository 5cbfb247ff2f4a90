"""Runs what must not run twice at a time in one process: tracing, building, checking and timing kernels.

Tracing replaces functions of PyTorch for the whole process, and a timing counts whatever else runs. One lock serves all, as these
meet: checking a cell builds it, and building it traces it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

from seqnets.forking import Lock

P = ParamSpec("P")
R = TypeVar("R")

_UNKNOWN: Any = object()


class _Holder(threading.local):
    holds = False  # this thread has the lock, or works for the one that has


_holder = _Holder()
_lock = Lock()


@contextmanager
def exclusive() -> Iterator[None]:
    """Let no other thread of this process into any such block until this one has ended. Blocks may be nested."""
    if _holder.holds:
        yield
        return
    with _lock:
        _holder.holds = True
        try:
            yield
        finally:
            _holder.holds = False


def on_behalf(function: Callable[[], R]) -> Callable[[], R]:
    """Return the function for another thread that the caller waits for: there it may enter what the caller may."""
    holds = _holder.holds

    def run() -> R:
        _holder.holds = holds
        return function()

    return run


class Once(Generic[P, R]):
    """Keeps the results of a function, as `functools.cache` does, and runs it in one thread at a time; see `once`."""

    def __init__(self, function: Callable[P, R]) -> None:
        wraps(function)(self)
        self._function = function
        self.known: dict[Any, R] = {}  # by the arguments

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        key = (args, tuple(kwargs.items())) if kwargs else args
        found = self.known.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            with exclusive():
                found = self.known.get(key, _UNKNOWN)
                if found is _UNKNOWN:
                    found = self.known[key] = self._function(*args, **kwargs)
        return found

    def cache_clear(self) -> None:
        """Forget all results."""
        self.known.clear()


def once(function: Callable[P, R]) -> Once[P, R]:
    """Keep the results of a function, and run it `exclusive` of all others that are decorated so."""
    return Once(function)


# A fork waits until no other thread is in such a block: the child would inherit what tracing has replaced, and the locks of imports
SECONDS = 60.0
_waited = False


def _before_fork() -> None:
    global _waited
    _waited = not _holder.holds and _lock.acquire(SECONDS)


def _after_fork() -> None:
    global _waited
    if _waited:
        _waited = False
        _lock.__exit__()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
