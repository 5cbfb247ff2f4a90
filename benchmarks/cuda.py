"""Clocks of an NVIDIA GPU, and what is known of cuDNN. docs/gpu.md says what ran on one."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.cases import LayerCase

CALLS_OF_A_GRAPH = 10


def cudnn_algorithm(case: LayerCase, device: Any) -> str:
    """The algorithm that PyTorch asks of cuDNN (aten/src/ATen/native/cudnn/RNN.cpp, `get_algo`): ``forward/backward``.

    Args:
        device: `torch.cuda.get_device_properties`: major, minor and multi_processor_count are read.
    """
    small = (384, 256) if case.cell.startswith("rnn_") else (192, 128)
    persistent = case.dtype == "fp16" and not case.ragged and _persists(case, device)

    def choose(largest: int) -> str:
        if not case.ragged and case.dtype != "fp64" and largest >= case.H:
            return "persistent small H"
        return "persistent" if persistent else "standard"

    forward, backward = map(choose, small)
    return f"{forward}/{backward}" if case.mode == "train" and forward != backward else forward


def _persists(case: LayerCase, device: Any) -> bool:
    if case.layers > 1 or case.bidirectional or case.H > 1024 or case.H % 128 or case.I % 128:
        return False
    if device.major < 8 or device.multi_processor_count < 98 or device.minor == 6 or case.cell == "gru":
        return False
    return case.B % 8 == 0 and case.B <= 128 and (case.cell == "lstm" or case.B < 96 or case.H < 896)


def gpu_seconds(call: Callable[[], Any], calls: int, device: str = "cuda") -> float:
    """Of so many calls, by the GPU's events, the L2 cache written over before each: a call finds there what a training step
    leaves, not what it left itself.
    """
    l2 = torch.empty(2 * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.int8, device=device)
    call()
    pairs = []
    for _ in range(calls):
        l2.zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return sum(start.elapsed_time(end) for start, end in pairs) / 1e3


def launch_times(call: Callable[[], Any]) -> dict[str, Any]:
    """How long the host takes to launch a call, and how long a call takes in a replayed CUDA graph, or why there is none."""
    return {"host_seconds": _host_seconds(call), **_graph_seconds(call)}


def _host_seconds(call: Callable[[], Any]) -> float:
    call()
    took = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    torch.cuda.synchronize()
    return statistics.median(took)


def _graph_seconds(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # as capturing wants it: warm, on a stream of its own
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(CALLS_OF_A_GRAPH):
                call()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        graph.replay()
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        return {"graph_seconds": start.elapsed_time(end) / 1e3 / CALLS_OF_A_GRAPH}
    except Exception as error:  # whatever a library does that a graph cannot hold
        return {"graph_seconds": None, "why_no_graph": str(error).partition("\n")[0]}


def clocks() -> str | None:
    """Of the GPU, as its driver tells them: now and at most, in MHz, and the power limit."""
    if not torch.cuda.is_available() or not shutil.which("nvidia-smi"):
        return None
    query = "--query-gpu=clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"
    done = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True)
    return done.stdout.strip() or None
