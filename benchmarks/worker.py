"""Runs one contender in its own process: reads orders, one JSON object per line, and answers each with another.

    python -m benchmarks.worker <settings as JSON>

benchmarks/worker_pool.py is its counterpart. Each contender has a process of its own because libraries do not share one
well (thread pools, allocators, CUDA contexts), because a crash must not end the run, and because a contender may live
in another environment.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import case_of
from benchmarks.contenders import CONTENDERS, Absent, Settings, Work, in_a_line

OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "failed to allocate",
    "RESOURCE_EXHAUSTED",
)


class Contender:
    """Answers orders, one case at a time, in the order prepare, first, run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.work: Work | None = None
        self._introduced: dict[str, Any] | None = None

    def hello(self) -> dict[str, Any]:
        """Return the versions of what the contender runs on, or why it is absent."""
        if self._introduced is None:
            self._introduced = self._introduce()
        return self._introduced

    def _introduce(self) -> dict[str, Any]:
        try:
            self.module = importlib.import_module(CONTENDERS.get(self.settings.contender, self.settings.contender))
            return {"versions": self.module.versions(self.settings), "python": sys.version.split()[0]}
        except ImportError as error:
            name = self.settings.contender
            way_out = f"pip install -e '.[bench]', or pythons.{name}=<an interpreter that has it>"
            return {"absent": f"{error} in {sys.executable}: {way_out}"}
        except Absent as error:
            return {"absent": str(error)}

    def prepare(self, case: dict[str, Any], arrays: str | None) -> dict[str, Any]:
        """Build the work of a case, compiled as far as is possible without doing it; return the seconds that it took.

        Args:
            case: The case, as `Case.to_dict` returns it.
            arrays: The path of its inputs as .npz, or None.
        """
        self.hello()  # in case this process was restarted
        self.forget()
        wanted = case_of(case)
        if why := self.module.why_not(wanted, self.settings):
            return {"status": "not served", "why": why}
        loaded: dict[str, np.ndarray] = {}
        if arrays is not None:
            with np.load(arrays) as file:
                loaded = dict(file)
        start = time.perf_counter()
        self.work = self.module.prepare(wanted, loaded, self.settings)
        return {"status": "ready", "seconds": time.perf_counter() - start}

    def first(self, outputs: str) -> dict[str, Any]:
        """Do the work for the first time and write its outputs to a file; return the seconds it took, and notes."""
        assert self.work is not None
        start = time.perf_counter()
        result = self.work.call()
        self.work.wait(result)
        seconds = time.perf_counter() - start
        np.savez(outputs, **self.work.outputs(result))  # type: ignore[arg-type]
        return {"seconds": seconds, "notes": self.work.notes()}

    def run(self, calls: int) -> dict[str, Any]:
        """Return the total seconds of `calls` calls, after an untimed one that finds the caches as others left them."""
        assert self.work is not None
        if self.work.warms_up:
            self.work.wait(self.work.call())
        if self.work.run is not None:
            return {"seconds": self.work.run(calls)}
        start = time.perf_counter()
        self._repeat(calls)
        return {"seconds": time.perf_counter() - start}

    def _repeat(self, calls: int) -> None:
        assert self.work is not None
        for _ in range(calls):
            result = self.work.call()
        self.work.wait(result)

    def memory(self, calls: int) -> dict[str, Any]:
        """Return the bytes that calls add at their peak, and those kept for backward where the library can tell.

        On CUDA, the peak is that of the device memory that torch allocates. Otherwise it is that of the resident set,
        on Linux only, as only there the peak can be reset.
        """
        assert self.work is not None
        gc.collect()
        found: dict[str, Any] = {}
        if self.settings.device == "cuda":
            if "torch" not in sys.modules:
                return {"status": "not served", "why": "the memory that its allocator takes of a GPU is not read here"}
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self._repeat(calls)
            found["peak_bytes"] = torch.cuda.max_memory_allocated() - before
        elif not Path("/proc/self/clear_refs").exists():
            return {"status": "not served", "why": "the peak of a process can be reset on Linux only"}
        else:
            if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
                libc.malloc_trim(0)  # memory freed before, as by a compiler, would be reused and not counted
            Path("/proc/self/clear_refs").write_text("5")
            before = _resident("VmRSS")
            self._repeat(calls)
            found["peak_bytes"] = _resident("VmHWM") - before
        if self.work.saved_bytes is not None:
            found["saved_bytes"] = self.work.saved_bytes()
        return found

    def peak(self) -> dict[str, Any]:
        """Return the largest resident set of this process so far, in bytes."""
        if Path("/proc/self/status").exists():  # on Linux, getrusage's peak includes the parent's
            return {"peak_bytes": _resident("VmHWM")}
        per_unit = 1 if sys.platform == "darwin" else 1024
        return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * per_unit}

    def forget(self) -> dict[str, Any]:
        self.work = None
        gc.collect()
        if self.settings.device == "cuda" and "torch" in sys.modules:  # contenders share the GPU
            sys.modules["torch"].cuda.empty_cache()
        return {}

    def launches(self) -> dict[str, Any]:
        """Return as notes what it costs to launch the work, where the library can tell.

        Comes after all times are taken, because it may spoil the process.
        """
        assert self.work is not None
        return {"notes": self.work.launches()}


def _resident(which: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) * 1024


def answer(contender: Contender, order: dict[str, Any]) -> dict[str, Any]:
    """Carry out an order and return its answer; an error is an answer too."""
    try:
        return getattr(contender, order.pop("do"))(**order)
    except Exception as error:
        traceback.print_exc()
        memory = isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY)
        return {"status": "out of memory" if memory else "failed", "why": in_a_line(error)}


def _die_with_parent() -> None:
    """Have Linux kill this process when its parent ends, however that happens.

    The process may be stopped at that time, and would otherwise stay forever.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    settings = Settings(**json.loads(sys.argv[1]))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings.threads])
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not be mistaken for an answer
    warnings.simplefilter("ignore")
    contender = Contender(settings)
    for line in sys.stdin:
        print(json.dumps(answer(contender, json.loads(line)), default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
