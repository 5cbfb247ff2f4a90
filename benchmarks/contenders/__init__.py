"""Who takes part. One file each: a library, and how it does the work of a case as its users would have it do it.

A module has

- ``versions(settings)``: of what it runs on, by name. ImportError, or `Absent` with a sentence, where it cannot take part here.
- ``why_not(case, settings)``: why it cannot do the work of a case, as a sentence, or None.
- ``prepare(case, arrays, settings)``: a `Work`, compiled and ready.

It runs in a process of its own (benchmarks/worker.py), perhaps of another environment: it imports the standard library, numpy,
its library, and nothing of seqnets but `benchmarks.cases` and this file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# name -> module; where several names share one, it sees its own as settings.contender. A name with a dot that is
# not here is that of a module: a contender of one's own.
CONTENDERS = {
    "seqnets": "benchmarks.contenders.with_torch",
    "seqnets-aten": "benchmarks.contenders.with_torch",
    "seqnets-cpp": "benchmarks.contenders.with_torch",
    "seqnets-triton": "benchmarks.contenders.with_torch",
    "seqnets-reference": "benchmarks.contenders.with_torch",
    "torch.nn": "benchmarks.contenders.with_torch",
    "torch.compile": "benchmarks.contenders.with_torch",
    "torch.compile-step": "benchmarks.contenders.with_torch",
    "keras": "benchmarks.contenders.with_keras",
    "flax": "benchmarks.contenders.with_flax",
    "onnxruntime": "benchmarks.contenders.with_onnxruntime",
    "flashrnn": "benchmarks.contenders.with_flashrnn",
}


def is_contender(name: str) -> bool:
    """Whether there is one of that name."""
    try:
        return name in CONTENDERS or ("." in name and importlib.util.find_spec(name) is not None)
    except (ImportError, ValueError):
        return False


Arrays = dict[str, np.ndarray]


class Absent(Exception):
    """The contender cannot take part on this machine; the message says why, and the way out."""


def in_a_line(error: Exception) -> str:
    """Its kind, and the first line of its message that says something."""
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:300]


class Settings(NamedTuple):
    """The same for all contenders of a run."""

    contender: str
    device: str  # "cpu" or "cuda"
    threads: int
    precision: str  # of float32 products: "ieee" or "tf32"
    scratch: str  # a folder of its own
    unroll: int  # time steps, of all layers and directions, that a compiler may be asked to unroll


class Work(NamedTuple):
    """The work of a case, ready to be done again and again."""

    call: Callable[[], Any]
    # until what `call` returned is there; a library that returns early is waited for within the time
    wait: Callable[[Any], None]
    # what `call` returned, by name. For LayerCase in mode "infer": y (T, B, D*H). "train": also d_x and, for each suffix of
    # `LayerCase.sizes`, d_weight_ih_<suffix>, d_weight_hh_<suffix>, d_bias_ih_<suffix>, shaped as torch.nn's. "step": y (B, H).
    outputs: Callable[[Any], dict[str, np.ndarray]]
    # once `call` was: what a reader of the result should know, such as the backend that was taken
    notes: Callable[[], dict[str, Any]] = dict
    # bytes kept by the forward pass for the backward pass, where the library can tell
    saved_bytes: Callable[[], int] | None = None
    # seconds of so many calls, where timing `call` from outside would not do
    run: Callable[[int], float] | None = None
    # whether one more call before a turn does no harm
    warms_up: bool = True
    # what is known of launching the work on a GPU, as more notes; asked for last
    launches: Callable[[], dict[str, Any]] = dict
