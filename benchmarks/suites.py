"""Measures a case of each suite."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.cases import Case, KernelCase, LayerCase, TrainCase
from benchmarks.contenders import Arrays
from benchmarks.machine import chain_seconds
from benchmarks.problem import Oracle, make_arrays
from benchmarks.results import work_of
from benchmarks.worker_pool import Answer, WorkerPool
from seqnets.cells import get_cell
from seqnets.errors import CellError, SeqnetsError
from seqnets.kernels.arguments import DTYPES

Say = Callable[[str], None]


class Refused(Exception):
    """Raised when a case cannot be measured here; the message says why."""


def measure(case: Case, names: list[str], pool: WorkerPool, seed: int, device: str, precision: str, say: Say) -> Answer:
    """Measure a case, and return it as schema.json defines it: ``results`` by contender, and for layers the ``work``.

    Raises:
        Refused: The case itself is impossible here, whoever does the work.
    """
    if isinstance(case, KernelCase):
        say("compiles")
        return {"results": {"seqnets": examine(case)}}
    if isinstance(case, TrainCase):
        return {"results": train(case, names, pool, say)}
    assert isinstance(case, LayerCase)
    say("computes in float64")
    try:
        refuse_too_large(case, device)
        arrays = make_arrays(case, seed)
        oracle = Oracle(case, arrays, device, precision)
    except CellError as error:
        raise Refused(str(error)) from error
    except (MemoryError, RuntimeError) as error:  # torch raises the latter
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise Refused(f"out of memory, as it is judged in float64: {str(error).splitlines()[0]}") from error
        raise
    finally:
        if device == "cuda":  # leaves the memory to the contenders
            torch.cuda.empty_cache()
    judge = partial(judged, oracle)
    gates = get_cell(case.cell).gates
    rows = int(arrays["lengths"].sum()) if case.ragged else case.T * case.B
    work = work_of(case, gates, rows) | {"chain_seconds": chain_seconds(case, gates, device)}
    if case.suite == "memory":
        small = dataclasses.replace(case, T=2, B=1)
        results = pool.measure_memory(case, small, names, arrays, make_arrays(small, seed), judge, say)
    else:
        results = pool.measure(case, names, arrays, judge, say)
    return {"results": results, "work": work}


def judged(oracle: Oracle, outputs: Arrays) -> Answer:
    """Judge outputs by the project's tolerance policy, the same for all contenders.

    Returns:
        The ``error`` that is the largest relative to what is allowed; and, for wrong outputs, ``status`` and ``why``.
    """
    worst = oracle.worst(outputs)
    if isinstance(worst, str):
        return {"status": "wrong", "why": worst}
    error = {"what": worst.what, "error": min(worst.error, 1e300), "allowed": worst.allowed}
    if worst.ratio <= 1:
        return {"error": error}
    why = f"{worst.what} is {worst.error:.2g} from its value in float64, where {worst.allowed:.2g} is allowed"
    return {"status": "wrong", "why": why, "error": error}


def refuse_too_large(case: LayerCase, device: str) -> None:
    """Raise Refused where the reference in float64 needs more memory than is free.

    The reference keeps every gate of every step. CUDA's memory is not checked.
    """
    gates = get_cell(case.cell).gates
    numbers = case.T * case.B * case.directions * case.layers * (case.I + 8 * gates * case.H)
    needed = 8 * numbers * (2 if case.mode == "train" else 1)
    available = None if device == "cuda" else _available_bytes()
    if available is not None and needed > available:
        raise Refused(
            f"out of memory: to judge it in float64 takes some {needed / 1e9:.0f} GB, "
            f"and {available / 1e9:.0f} GB are free"
        )


def _available_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def train(case: TrainCase, names: list[str], pool: WorkerPool, say: Say) -> dict[str, Answer]:
    """Time steps of training in turns, and return the answer of each contender.

    Every contender starts from its own weights, sampled alike, so little can be judged. A contender is right if its
    first loss is within a tenth of the first contender's, and its number of parameters within a hundredth (`torch.nn`
    has one more bias).

    Raises:
        Refused: The experiment, or its data, cannot be loaded.
    """
    from hydra.errors import HydraException

    from benchmarks.contenders.training import load_examples

    say("loads its data")
    try:
        examples = load_examples(case)
    except (SeqnetsError, HydraException) as error:
        raise Refused(f"{case.experiment} cannot be had: {str(error).partition(chr(10))[0]}") from error
    epoch_steps = -(-len(examples["inputs"]) // int(examples["batch_size"]))
    turns = max(case.turns, (epoch_steps - 10) // case.steps if case.epoch else 0)
    first: list[tuple[float, int]] = []

    def judge(outputs: Arrays) -> Answer:
        loss, parameters = float(outputs["loss"]), int(outputs["parameters"])
        told = {"parameters": parameters, "epoch_steps": epoch_steps}
        if not np.isfinite(loss):
            return told | {"status": "wrong", "why": f"its loss begins at {loss}"}
        first.append((loss, parameters))
        for what, value, expected, within in (
            ("loss begins at", loss, first[0][0], 0.1),
            ("parameters are", parameters, first[0][1], 0.01),
        ):
            if abs(value - expected) > within * expected:
                return told | {"status": "wrong", "why": f"its {what} {value:.7g}, where the first has {expected:.7g}"}
        return told

    results = pool.measure(case, names, examples, judge, say, calls=case.steps, turns=turns)
    for name, result in results.items():
        if result["status"] == "measured":
            peak = pool.ask(name, "peak")
            result["peak_bytes"] = [peak["peak_bytes"]] if "peak_bytes" in peak else []
        pool.workers[name].stop()  # only the end of its process frees a training
    return results


def examine(case: KernelCase) -> Answer:
    """Compile a kernel for a GPU that need not be present, and return what the compiler made of it."""
    from seqnets.kernels.availability import interpreted, triton_version

    if triton_version() is None:
        return {"status": "not served", "why": "Triton is not installed (pip install triton)"}
    if interpreted():
        return {"status": "not served", "why": "TRITON_INTERPRET=1 is set, and an interpreter compiles nothing"}
    from seqnets.kernels.report.command import describe
    from seqnets.kernels.triton.cases import Case as Compiled
    from seqnets.kernels.triton.planning.arch import ARCHS
    from seqnets.kernels.triton.planning.select import demand_of

    try:
        cell, dtype, backward = get_cell(case.cell), DTYPES[case.dtype], case.pass_ == "backward"
        row = describe(
            cell, Compiled(case.H, 1, dtype, backward, True, False, 1), demand_of(cell, case.H, 1, dtype, backward),
            ARCHS[case.arch],
        )  # fmt: skip
    except Exception as error:  # the compiler may raise anything
        return {"status": "failed", "why": f"{type(error).__name__}: {error}"[:300]}
    if row["schedule"] is None:
        return {"status": "not served", "why": row["why"]}
    return {"status": "measured", "kernel": row}
