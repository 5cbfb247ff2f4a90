"""Runs work that must neither see nor change the modes (autocast, tracing and so on) of its caller."""

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


def isolated(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run `function` in a thread of its own, outside the modes of the caller, and return its result.

    Torch keeps autocast, inference mode, fake tensors, tracing and the like per thread. The modes of torch.export
    belong to the process instead; they are disabled for the call. Only one such call runs at a time.
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

    In CUDA builds of torch 2.11, the stand-in belongs to the first thread that traces on a machine without a GPU, but
    every thread reads it. The process crashes once that thread has ended, as the threads of `isolated` do.
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
