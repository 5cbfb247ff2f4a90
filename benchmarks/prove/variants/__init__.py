"""Tries variants of the kernels on a GPU, to decide which of them go into the kernels.

`pieces` has single changes of the kernels; `persistent` is a prototype of a third schedule. A variant that is chosen
moves to kernels/, and is removed here.
"""

from __future__ import annotations

from benchmarks.prove.variants import pieces, try_persistent
from benchmarks.prove.workers import Task


def tasks(rehearsed: bool) -> list[Task]:
    return [*try_persistent.tasks(rehearsed), *pieces.tasks(rehearsed)]


def compilations(rehearsed: bool) -> list[Task]:
    """Return the tasks that fill Triton's cache for `tasks`, and that can run beside others."""
    return [*try_persistent.compilations(rehearsed), *pieces.compilations(rehearsed)]
