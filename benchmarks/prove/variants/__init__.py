"""Tries variants to choose between: experiments that are compiled and run on a GPU before they go into the kernels, or do not.

`pieces` are single changes of the kernels, `persistent` is a prototype of a third schedule. What is chosen moves into kernels/, and
goes from here.
"""

from __future__ import annotations

from benchmarks.prove.variants import pieces, try_persistent
from benchmarks.prove.workers import Task


def tasks(rehearsed: bool) -> list[Task]:
    return [*try_persistent.tasks(rehearsed), *pieces.tasks(rehearsed)]


def compilations(rehearsed: bool) -> list[Task]:
    """Return what fills Triton's cache for `tasks`, and can run beside others."""
    return [*try_persistent.compilations(rehearsed), *pieces.compilations(rehearsed)]
