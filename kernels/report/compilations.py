"""Records what Triton compiles and how long that takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Compilation(NamedTuple):
    kernel: str
    seconds: float
    cached: bool  # read from Triton's cache on disk instead of compiled


@contextmanager
def watch_compilations(seen: list[Compilation]) -> Iterator[None]:
    """Append each compilation within a ``with`` block to `seen`. The interpreter compiles nothing."""
    import triton

    before = triton.knobs.compilation.listener

    def listen(*, src: Any, times: Any, cache_hit: bool, **more: Any) -> None:
        seen.append(Compilation(src.name, times.total / 1e6, cache_hit))  # Triton reports microseconds
        if before is not None:
            before(src=src, times=times, cache_hit=cache_hit, **more)

    triton.knobs.compilation.listener = listen
    try:
        yield
    finally:
        triton.knobs.compilation.listener = before
