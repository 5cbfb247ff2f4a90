"""Work that must not see, let alone change, the modes in which its caller happens to run."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

import torch
from torch.utils._python_dispatch import _disable_current_modes

P = ParamSpec("P")
R = TypeVar("R")


def apart(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """`function` in a thread of its own: torch keeps autocast, inference, fake tensors, tracing and the like per thread.

    But for the modes of torch.export, which are those of the process.
    """
    _keep_absent_gpu()

    def alone() -> R:
        with _disable_current_modes():
            return function(*args, **kwargs)

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(alone).result()


@cache
def _keep_absent_gpu() -> None:
    """What stands for a GPU that is not there belongs, in torch 2.11 built for CUDA, to the thread that first traces, and the whole
    process goes on to read it: where that thread has ended, it crashes. So a thread that does not end has it.
    """
    ensure = getattr(torch._C, "_ensureCUDADeviceGuardSet", None)
    if ensure is None or torch.version.cuda is None or torch.cuda.is_available():
        return
    done = threading.Event()

    def hold() -> None:
        ensure()
        done.set()
        threading.Event().wait()

    threading.Thread(target=hold, name="seqnets-absent-gpu", daemon=True).start()
    done.wait()
