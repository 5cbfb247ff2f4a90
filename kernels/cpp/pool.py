"""Keeps memory for large tensors that are allocated and freed at every training step.

Fresh memory from the system is slow, because each of its pages costs a page fault.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections import defaultdict
from functools import cache

import torch
from torch import Tensor

from seqnets.forking import after_fork

SMALLEST = 1 << 17  # bytes; smaller tensors are allocated by torch
KEPT = 1 << 31  # most bytes that are kept while unused


class Pool:
    """Lends memory to tensors and takes it back when they are freed."""

    def __init__(self, most: int = KEPT) -> None:
        # Re-entrant: the garbage collector may free a tensor while another is allocated. Not a `forking.Lock`, whose
        # methods in Python every large tensor would call.
        self._renew_lock()
        after_fork(self._renew_lock)
        self._free: dict[int, list[Tensor]] = defaultdict(list)
        self._most = most
        self.idle = 0  # bytes

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialized tensor on the CPU, as `torch.empty` does."""
        size = math.prod(shape) * dtype.itemsize
        if size < SMALLEST:
            return torch.empty(shape, dtype=dtype, device="cpu")
        room = _rounded(size)
        with self._lock:
            owner = self._free[room].pop() if self._free[room] else None
            self.idle -= room if owner is not None else 0
        if owner is None:
            owner = torch.empty(room, dtype=torch.uint8, device="cpu")
        loan = _array(room).from_address(owner.data_ptr())
        weakref.finalize(loan, self._take_back, owner).atexit = False
        tensor = torch.frombuffer(loan, dtype=dtype, count=size // dtype.itemsize).view(shape)
        if torch.are_deterministic_algorithms_enabled() and torch.utils.deterministic.fill_uninitialized_memory:  # type: ignore[attr-defined]
            tensor.fill_(math.nan)  # as torch.empty does in this mode
        return tensor

    def allocate(self, *wanted: tuple[tuple[int, ...], torch.dtype]) -> list[Tensor]:
        """Return an uninitialized tensor for each shape and dtype."""
        return [self.empty(*each) for each in wanted]

    def _take_back(self, owner: Tensor) -> None:
        with self._lock:
            if self.idle + owner.numel() <= self._most:
                self._free[owner.numel()].append(owner)
                self.idle += owner.numel()

    def clear(self) -> None:
        """Return all unused memory to the system."""
        with self._lock:
            self._free.clear()
            self.idle = 0


@cache
def _array(size: int) -> type[ctypes.Array[ctypes.c_char]]:
    return ctypes.c_char * size  # cached, because creating the type takes longer than everything else here


def _rounded(size: int) -> int:
    """Round up by at most an eighth, so that batches of nearly the same length can reuse the same memory."""
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step


pool = Pool()
