"""Runs what must not run twice at a time in one process: tracing, building, checking and timing kernels.

Tracing replaces functions of PyTorch for the whole process, and a timing counts whatever else runs. One lock serves all, as these
meet: checking a cell builds it, and building it traces it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar, cast

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
    """A function whose results are kept, as by `functools.cache`, and that runs in one thread at a time; see `once`."""

    def __init__(self, function: Callable[P, R]) -> None:
        wraps(function)(self)
        self._function = function
        self._known: dict[Any, R] = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        key = (args, tuple(kwargs.items())) if kwargs else args
        found = self._known.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            with exclusive():
                found = self._known.get(key, _UNKNOWN)
                if found is _UNKNOWN:
                    found = self._known[key] = self._function(*args, **kwargs)
        return cast(R, found)

    def cache_clear(self) -> None:
        """Forget all results."""
        self._known.clear()


def once(function: Callable[P, R]) -> Once[P, R]:
    """Keep the results of a function, and run it `exclusive` of all others that are decorated so."""
    return Once(function)
