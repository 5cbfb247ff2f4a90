"""Work that must not see, let alone change, the modes in which its caller happens to run."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from torch.utils._python_dispatch import _disable_current_modes

P = ParamSpec("P")
R = TypeVar("R")


def apart(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """`function` in a thread of its own: torch keeps autocast, inference, fake tensors, tracing and the like per thread.

    But for the modes of torch.export, which are those of the process.
    """

    def alone() -> R:
        with _disable_current_modes():
            return function(*args, **kwargs)

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(alone).result()
