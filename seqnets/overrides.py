"""Overrides a setting of the process within a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def override(stack: list[list[str]], value: str) -> Iterator[None]:
    """Push a value onto a stack, wrapped in a list, and remove exactly that list afterwards.

    By then it may no longer be the last entry: another thread may have pushed one that is still in force.
    """
    entry = [value]
    stack.append(entry)
    try:
        yield
    finally:
        stack[:] = [other for other in stack if other is not entry]
