"""Defines the contenders. Each file has one library do the work of a case, as its users would.

A module has these functions:

- ``versions(settings)`` returns the versions of what it runs on, by name. It raises ImportError, or `Absent` with a
  sentence, if the contender cannot take part here.
- ``why_not(case, settings)`` returns a sentence that says why it cannot do the work of a case, or None.
- ``prepare(case, arrays, settings)`` returns a `Work`, compiled and ready.

A module runs in a process of its own (benchmarks/worker.py), perhaps in another environment. So it imports only the
standard library, numpy, its library, `benchmarks.cases` and this file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# name -> module. A module that several names share reads the name from settings.contender. A name with a dot that is
# not listed here is a module's: a user's own contender.
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
    """Tell whether there is a contender of that name."""
    try:
        return name in CONTENDERS or ("." in name and importlib.util.find_spec(name) is not None)
    except (ImportError, ValueError):
        return False


Arrays = dict[str, np.ndarray]


class Absent(Exception):
    """Raised when a contender cannot take part on this machine; the message says why, and how to change that."""


def in_a_line(error: Exception) -> str:
    """Return an error's type and the first line of its message that is not blank, in at most 300 characters."""
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:300]


class Settings(NamedTuple):
    """Holds the settings of a contender. Those of a run differ only in `contender` and `scratch`."""

    contender: str
    device: str  # "cpu" or "cuda"
    threads: int
    precision: str  # of float32 products: "ieee" or "tf32"
    scratch: str  # a folder of the contender's own
    unroll: int  # how many time steps, over all layers and directions, a compiler may be asked to unroll


class Work(NamedTuple):
    """Holds the work of a case, ready to be done repeatedly."""

    call: Callable[[], Any]
    # waits until what `call` returned has been computed; the wait counts as part of the time
    wait: Callable[[Any], None]
    # returns by name what `call` returned. For LayerCase in mode "infer": y (T, B, D*H). "train": also d_x and, for
    # each suffix of `LayerCase.sizes`, d_weight_ih_<suffix>, d_weight_hh_<suffix>, d_bias_ih_<suffix>, with torch.nn's
    # shapes. "step": y (B, H).
    outputs: Callable[[Any], dict[str, np.ndarray]]
    # after a `call`: what a reader of the result should know, such as the backend that was used
    notes: Callable[[], dict[str, Any]] = dict
    # bytes kept by the forward pass for the backward pass, where the library can tell
    saved_bytes: Callable[[], int] | None = None
    # returns the total seconds of so many calls, where timing `call` from outside would be wrong
    run: Callable[[int], float] | None = None
    # whether an extra call before a turn is harmless
    warms_up: bool = True
    # what is known of launching the work on a GPU, as further notes; called last
    launches: Callable[[], dict[str, Any]] = dict
