"""Work that must not see, let alone change, the modes in which its caller happens to run."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from seqnets.once import exclusive, on_behalf

P = ParamSpec("P")
R = TypeVar("R")


def apart(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `function` in a thread of its own: torch keeps autocast, inference, fake tensors, tracing and the like per thread.

    But for the modes of torch.export, which are those of the process. Only one such call runs at a time.
    """
    _keep_absent_gpu()

    def alone() -> R:
        with _disable_current_modes():
            return function(*args, **kwargs)

    with exclusive(), ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(on_behalf(alone)).result()


@cache
def _keep_absent_gpu() -> None:
    """Register torch's stand-in for an absent GPU from a thread that never ends.

    In CUDA builds of torch 2.11, the stand-in belongs to the first thread that traces on a machine without a GPU, but every
    thread reads it. The process crashes once the owner has ended, as the threads of `apart` do.
    """
    if torch.version.cuda is None or torch.cuda.is_available():
        return
    registered = threading.Event()

    def own() -> None:
        with FakeTensorMode():
            pass
        registered.set()
        threading.Event().wait()

    threading.Thread(target=own, name="seqnets-absent-gpu", daemon=True).start()
    registered.wait()
