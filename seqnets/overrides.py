"""Overrides a setting of the process within a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def override(stack: list[list[str]], value: str) -> Iterator[None]:
    """Put a value on top of a stack, in a list of its own, and take this very list away afterwards.

    It may not be the last by then: in another thread a later one may still hold.
    """
    entry = [value]
    stack.append(entry)
    try:
        yield
    finally:
        stack[:] = [other for other in stack if other is not entry]
