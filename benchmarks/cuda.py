"""Times calls on an NVIDIA GPU, reads its clocks, and predicts cuDNN's algorithm. docs/gpu.md says what ran on one."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from benchmarks.cases import LayerCase

CALLS_OF_A_GRAPH = 10
# The GPU waits HEAD_START times as long as the host takes to launch a call. MOST_CYCLES bounds its clock, in Hz.
HEAD_START, MOST_CYCLES = 1.5, 2e9


def cudnn_algorithm(case: LayerCase, device: Any) -> str:
    """Return the algorithm that PyTorch asks of cuDNN (aten/src/ATen/native/cudnn/RNN.cpp, `get_algo`).

    Args:
        case: The layer and its mode.
        device: What `torch.cuda.get_device_properties` returns; major, minor and multi_processor_count are read.

    Returns:
        ``forward/backward`` for training where the two differ, else one name.
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
    """Return the total seconds of `calls` calls, timed by the GPU's events.

    The GPU is kept busy before each call until the host has launched it, so that the time is the GPU's, however slow
    the host is. (The queue holds about a thousand launches; a call with more launches waits for the host all the same.)
    The L2 cache is overwritten before each call, which then finds there what a training step leaves, not what the call
    before left.
    """
    l2 = torch.empty(2 * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.int8, device=device)
    head_start = int(HEAD_START * _until_launched(call) * MOST_CYCLES)
    pairs = []
    for _ in range(calls):
        l2.zero_()
        torch.cuda._sleep(head_start)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        pairs.append((start, end))
        torch.cuda.synchronize()  # so that head starts do not add up in the queue
    return sum(start.elapsed_time(end) for start, end in pairs) / 1e3


def launch_times(call: Callable[[], Any]) -> dict[str, Any]:
    """Time how long the host takes to launch a call, and how long a call takes in a replayed CUDA graph.

    Returns:
        ``host_seconds``, and what `graph_seconds` returns.
    """
    return {"host_seconds": host_seconds(call), **graph_seconds(call)}


def host_seconds(call: Callable[[], Any]) -> float:
    """Return the median seconds until a call has been launched and the host is free again."""
    call()
    took = [_until_launched(call) for _ in range(20)]
    torch.cuda.synchronize()
    return statistics.median(took)


def _until_launched(call: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def graph_seconds(call: Callable[[], Any]) -> dict[str, Any]:
    """Time a call in a replayed CUDA graph.

    A capture that fails can leave the process unfit for anything else.

    Returns:
        ``graph_seconds``, the median seconds of one call. It is None where there is no graph, or where a replay gives
        other values than the call itself; ``why_no_graph`` then says why.
    """
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # a capture needs a warm call on a side stream
            for _ in range(3):
                expected = call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(CALLS_OF_A_GRAPH):
                found = call()
        with torch.no_grad():
            for tensor in tensors_of(found):
                tensor.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        if not alike(expected, found):
            return {"graph_seconds": None, "why_no_graph": "a replay of the graph gives other values than the call"}
        return {"graph_seconds": statistics.median(_replay(graph) for _ in range(5)) / CALLS_OF_A_GRAPH}
    except Exception as error:  # a library may do anything that a graph cannot hold
        torch.cuda.synchronize()  # which raises where the GPU itself failed
        return {"graph_seconds": None, "why_no_graph": str(error).partition("\n")[0]}


def _replay(graph: Any) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    graph.replay()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def tensors_of(found: Any) -> list[torch.Tensor]:
    """Return the floating-point tensors among what a call returns, in order."""
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def alike(expected: Any, found: Any) -> bool:
    """Tell whether two results of a call are equal but for rounding; nan equals nothing."""
    pairs = zip(tensors_of(expected), tensors_of(found), strict=True)
    return all(bool((a.double() - b.double()).norm() <= 1e-2 * a.double().norm()) for a, b in pairs)


def clocks() -> str | None:
    """Return the GPU's clocks (current and maximum, in MHz), power limit, temperature and throttling, from nvidia-smi.

    Returns None where there is no GPU, or nvidia-smi does not respond.
    """
    return _ask("clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu,clocks_throttle_reasons.active")


def driver_version() -> str | None:
    """Return the release of the driver, such as 580.65.06, or None where nvidia-smi does not tell."""
    return _ask("driver_version")


def _ask(what: str) -> str | None:
    if not torch.cuda.is_available() or not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={what}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):  # for example, the GPU does not respond
        return None
    return (done.stdout.strip() or None) if done.returncode == 0 else None
