"""Serializes work that must not overlap within one process: tracing, building, checking and timing kernels.

Tracing replaces functions of PyTorch for the whole process, and a timing also measures whatever else runs. All of them
share one lock, because they are nested: checking a cell builds it, and building it traces it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

from seqnets.forking import Lock

P = ParamSpec("P")
R = TypeVar("R")

_UNKNOWN: Any = object()


class _Holder(threading.local):
    holds = False  # this thread holds the lock, or works for the thread that does


_holder = _Holder()
_lock = Lock()


@contextmanager
def exclusive() -> Iterator[None]:
    """Keep all other threads of this process out of such blocks until this block ends. Blocks may be nested."""
    if _holder.holds:
        yield
        return
    with _lock:
        _watch_forks()
        _holder.holds = True
        try:
            yield
        finally:
            _holder.holds = False


def on_behalf(function: Callable[[], R]) -> Callable[[], R]:
    """Wrap a function for a thread that the caller waits for, so that it may enter the blocks that the caller may."""
    holds = _holder.holds

    def run() -> R:
        _holder.holds = holds
        return function()

    return run


class Once(Generic[P, R]):
    """Caches the results of a function, like `functools.cache`, and runs it in one thread at a time; see `once`."""

    def __init__(self, function: Callable[P, R]) -> None:
        wraps(function)(self)
        self._function = function
        self.known: dict[Any, R] = {}  # results by arguments

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
        """Discard all cached results."""
        self.known.clear()


def once(function: Callable[P, R]) -> Once[P, R]:
    """Cache the results of a function, and never run it at the same time as another function decorated so."""
    return Once(function)


# A fork waits, for at most SECONDS, until no other thread is in an `exclusive` block. Otherwise the child would inherit
# the functions that tracing has replaced, and the locks of imports that are under way.
SECONDS = 60.0
_waited = False
_watches = False


def _before_fork() -> None:
    global _waited
    _waited = not _holder.holds and _lock.acquire(SECONDS)


def _after_fork() -> None:
    global _waited
    if _waited:
        _waited = False
        _lock.__exit__()


def _watch_forks() -> None:
    """Register the hooks, once, before the first block runs. The lock is held."""
    global _watches
    if _watches:
        return
    _watches = True
    # Hooks run in reverse order, so ours run before those of torch's library of file locks. Otherwise no lock could be
    # released once that one waits for the fork, and the thread that we wait for may hold one.
    with suppress(ImportError):
        import filelock  # noqa: F401
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
