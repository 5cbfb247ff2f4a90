"""Stubs a GPU that does nothing: Triton's own compiler, launcher and driver run on a libcuda that only returns success.

On a machine without a GPU, the stub rehearses every line that a run on a GPU takes. `install` replaces the driver that
Triton talks to, the clocks and graphs of `torch.cuda`, and what seqnets asks of the device. Tensors are on the CPU.
Kernels are compiled for `ARCH` and launched, but nothing is computed: results are garbage, and must not be judged.

The stub needs a C compiler, as Triton's launcher does.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from seqnets.folders import cache_directory, make_private
from seqnets.kernels.cpp.build import is_file_trusted
from seqnets.kernels.triton.planning.arch import ARCHS

ARCH = "sm_90"
DEVICE = torch.device("cpu")
MEMORY = 8 << 30  # bytes that the stub reports, which bound what a test takes of the host's memory

# The functions that Triton's driver.c calls. The numbers come from cuda.h, and the returned values from an H100.
SOURCE = """
typedef int R;
static int value(int attribute) {
    switch (attribute) {
        case 1: return 1024;    /* threads of a block */
        case 10: return 32;     /* of a warp */
        case 12: return 65536;  /* registers of a block */
        case 16: return 132;    /* multiprocessors */
        case 75: return 9; case 76: return 0;  /* capability */
        case 97: return 232448; /* bytes of shared memory of a block, opted in */
        default: return 1;
    }
}
R cuInit(unsigned f) { return 0; }
R cuDriverGetVersion(int *v) { *v = 13000; return 0; }
R cuGetErrorString(int e, const char **s) { *s = "stub"; return 0; }
R cuDeviceGet(int *d, int i) { *d = i; return 0; }
R cuDeviceGetCount(int *n) { *n = 1; return 0; }
R cuDeviceGetAttribute(int *v, int a, int d) { *v = value(a); return 0; }
R cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)1; return 0; }
R cuCtxGetCurrent(void **c) { *c = (void *)1; return 0; }
R cuCtxSetCurrent(void *c) { return 0; }
R cuCtxGetDevice(int *d) { *d = 0; return 0; }
R cuCtxGetLimit(unsigned long *v, int l) { *v = 0; return 0; }
R cuCtxSetLimit(int l, unsigned long v) { return 0; }
R cuModuleLoadData(void **m, const void *image) { *m = (void *)1; return 0; }
R cuModuleUnload(void *m) { return 0; }
R cuModuleGetFunction(void **f, void *m, const char *name) { *f = (void *)1; return 0; }
R cuFuncGetAttribute(int *v, int a, void *f) { *v = a == 0 ? 1024 : 0; return 0; }
R cuFuncSetAttribute(void *f, int a, int v) { return 0; }
R cuFuncSetCacheConfig(void *f, int c) { return 0; }
R cuLaunchKernelEx(const void *c, void *f, void **p, void **e) { return 0; }
R cuOccupancyMaxActiveClusters(int *n, void *f, const void *c) { *n = 1; return 0; }
R cuPointerGetAttribute(void *v, int a, unsigned long p) { *(unsigned long *)v = p; return 0; }
R cuStreamIsCapturing(void *s, int *v) { *v = 0; return 0; }
R cuTensorMapEncodeTiled() { return 0; }
R cuTensorMapEncodeIm2col() { return 0; }
"""


def install() -> None:
    """Put the stub in place of a GPU, for the rest of this process."""
    _load_library()
    _replace_driver()
    _replace_clocks()
    _answer_for_the_device()


def _load_library() -> None:
    from triton import knobs

    folder = cache_directory() / f"stub-gpu-{hashlib.sha256(SOURCE.encode()).hexdigest()[:16]}"
    library = folder / "libcuda.so.1"
    make_private(folder)
    if not (library.exists() and is_file_trusted(library)):
        with tempfile.TemporaryDirectory(dir=folder) as building:  # several processes may build it at once
            source, built = Path(building, "stub.c"), Path(building, library.name)
            source.write_text(SOURCE, encoding="utf-8")
            command = ["cc", "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", str(built), str(source)]
            subprocess.run(command, check=True)
            built.replace(library)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)  # libraries linked against libcuda.so.1 get this one
    knobs.nvidia.libcuda_path = str(folder)


def _replace_driver() -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.driver import CudaDriver

    class StubDriver(CudaDriver):
        def __init__(self) -> None:
            super().__init__()
            self.get_current_device = lambda: 0
            self.set_current_device = lambda device: None
            self.get_current_stream = lambda device: 0
            self.get_device_capability = lambda device=0: (9, 0)

        def get_current_target(self) -> Any:
            return GPUTarget("cuda", ARCHS[ARCH].version, ARCHS[ARCH].warp_size)

        def get_active_torch_device(self) -> torch.device:
            return DEVICE

    triton.runtime.driver.set_active(StubDriver())


class _Event:
    """Stands in for a CUDA event, with the host's clock."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None: ...

    def elapsed_time(self, other: _Event) -> float:
        return 1e3 * (other.at - self.at)


class _Stream:
    cuda_stream = 0

    def wait_stream(self, other: Any) -> None: ...


class _Graph:
    def replay(self) -> None: ...


def _replace_clocks() -> None:
    cuda: Any = torch.cuda
    cuda.Event, cuda.Stream, cuda.CUDAGraph = _Event, _Stream, _Graph
    cuda.synchronize = lambda device=None: None
    cuda.current_stream = lambda device=None: _Stream()
    cuda.stream = cuda.graph = lambda *given, **more: contextlib.nullcontext()
    cuda.empty_cache = cuda._sleep = cuda.set_sync_debug_mode = lambda *given: None


def _answer_for_the_device() -> None:
    from benchmarks import cuda as clocks
    from seqnets.backends import triton as backend
    from seqnets.kernels.triton.planning import select

    cuda: Any = torch.cuda
    properties = SimpleNamespace(
        name="stub", major=9, minor=0, multi_processor_count=132, L2_cache_size=1 << 20, total_memory=MEMORY
    )
    cuda.get_device_properties = lambda device=None: properties
    cuda.get_device_capability = lambda device=None: (9, 0)
    cuda.get_device_name = lambda device=None: properties.name
    cuda.mem_get_info = lambda device=None: (MEMORY, MEMORY)
    clocks.alike = lambda expected, found: True  # a replayed graph computes nothing here
    cuda.is_available = lambda: False  # callers would go on to use a real GPU
    backend.why_unavailable = lambda device: None
    select.arch_here = lambda device: ARCHS[ARCH]
