"""Keeps freed memory in the process, because a training step on the CPU frees and allocates the same buffers again."""

import ctypes
import platform

import torch

# option numbers in malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory(device: torch.device) -> None:
    """Tell glibc's allocator not to return freed memory to the system, for the rest of the process.

    By default it returns large buffers at once, and each step pays for the page faults of allocating them anew: about a
    quarter of an `imdb_bilstm` step. Nothing happens for other devices, whose steps hardly allocate host memory, or
    with another C library.
    """
    if device.type == "cpu" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)  # allocate everything from the heap
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # the heap keeps up to 2 GiB of freed memory
