"""Checks a compiled cell on first use: compares it with the cell's own step on small random problems.

An untested compiler, CPU or set of flags may compile the source into something wrong. Kernels that disagree are
refused.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.errors import BackendError
from seqnets.kernels import store
from seqnets.kernels.availability import CHECK
from seqnets.kernels.cpp.library import Library, library
from seqnets.kernels.cpp.operator import layer, layer_backward, run_steps
from seqnets.kernels.cpp.printed import printed
from seqnets.kernels.isolation import isolated
from seqnets.once import once
from seqnets.tolerance import Error, verdict

log = logging.getLogger(__name__)

# (T, B) pairs: one with more rows than a tile of sums, and a single step of a few rows. H is longer than a vector and
# not a multiple of its length.
SIZES, I, H = ((4, 11), (1, 3)), 3, 21


@once
def why_disagrees(cell: Cell, dtype: torch.dtype) -> str | None:
    """Return the reason, as a clause, why the compiled cell cannot be trusted, or None if it agrees with the step.

    The result is kept for the process and, unless the kernels raised an error, on disk for the library.
    """
    own = library(cell, dtype)
    assert isinstance(own, Library)
    key = {"library": own.key, "torch": torch.__version__}
    known = store.read("check", key, store.verdict)
    if known is None:
        try:
            known = {"why": isolated(_judge, cell, dtype)}
        except Exception as error:  # log it in full, and let another backend serve
            log.warning("The compiled kernels of %r failed on their first use.", cell.name, exc_info=True)
            return f"on first use its kernels failed ({type(error).__name__}: {error}); the log has the traceback"
        store.write("check", key, known)
    return known["why"]


def _judge(cell: Cell, dtype: torch.dtype) -> str | None:
    off = f"({CHECK}=0 switches this check off)"
    try:
        worst = worst_error(cell, dtype)
    except BackendError as error:
        return f"{error} {off}"
    if worst is None or worst.ratio <= 1:
        return None
    return (
        f"on first use its kernels disagreed with the cell's step: {worst.what} is off by {worst.error:.2g} where "
        f"{worst.allowed:.2g} is allowed {off}"
    )


def worst_error(cell: Cell, dtype: torch.dtype, hidden: int = H, backward: bool = True) -> Error | None:
    """Return the worst error, relative to what is allowed, of a cell's kernels on random problems.

    Returns None in bfloat16 for a step with kinks: rounding may move a correct kernel to the other side of a kink.
    There the check in float32 must do.

    Args:
        cell: The cell to check.
        dtype: The dtype of the problems.
        hidden: The hidden size.
        backward: Check gradients too.

    Raises:
        BackendError: The step has no finite values on random numbers, so there is nothing to compare.
    """
    for positive in (False, True):  # a step with logarithms, say, has finite values for positive numbers only
        errors = []
        for steps, batch in SIZES:
            given = _random_problem(cell, dtype, (steps, batch, hidden), positive)
            runs = [_by_kernels(cell, given), _by_steps(cell, given, dtype), _by_steps(cell, given, torch.float64)]
            if not (runs[2]["y"].isfinite() & runs[1]["y"].isfinite()).any():
                break
            for what, oracle in runs[2].items():
                known = oracle.isfinite() & runs[1][what].isfinite()
                if backward or not what.startswith("gradient"):
                    errors.append(Error(what, *verdict(runs[0][what][known], runs[1][what][known], oracle[known])))
        else:
            rounds_over_kinks = dtype is torch.bfloat16 and printed(cell).jumps
            return None if rounds_over_kinks else max(errors, key=lambda error: error.ratio)
    raise BackendError("its step has no finite values on random numbers, so its kernels cannot be checked")


def _random_problem(cell: Cell, dtype: torch.dtype, sizes: tuple[int, int, int], positive: bool) -> tuple[Any, ...]:
    """Return arguments of `layer` up to `lengths`: two directions, ragged, with biases."""
    T, B, H = sizes
    generator = torch.Generator().manual_seed(0)
    D, G = 2, cell.gates

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        drawn = (torch.randn(shape, generator=generator) * scale).to(dtype)
        return drawn.abs() if positive else drawn

    return (
        normal(T, B, I),
        [normal(D, B, H).abs() for _ in cell.states],  # some states are never negative, such as normalizers
        [normal(G * H, I) for _ in range(D)],
        [normal(G * H, H, scale=H**-0.5) for _ in range(D)],
        [normal(G * H) for _ in range(D)],
        [normal(G * H) for _ in range(D)],
        [normal(H) for _ in range(D) for _ in cell.params],
        [(torch.rand(T, B, H, generator=generator) < 0.7).to(dtype) for _ in range(D) for _ in cell.masks],
        torch.arange(B) % (T + 1) if T > 1 else torch.ones(B, dtype=torch.int64),
    )


def _cotangents(cell: Cell, outputs: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outputs]


def _by_kernels(cell: Cell, given: tuple[Any, ...]) -> dict[str, Tensor]:
    with torch.no_grad():
        y, *found = layer._init_fn(*given, cell.key, True, True)
        S = len(cell.states)
        finals, states, (saved, columns) = found[:S], [y, *found[S:-2]], found[-2:]
        d_y, *d_finals = _cotangents(cell, [y, *finals])
        d_states = [d_y, *(None for _ in states[1:])]
        gradients = layer_backward._init_fn(*given, states, saved, columns, d_states, d_finals, cell.key, True)
        unkept = layer._init_fn(*given, cell.key, True, False)
    if not all(map(torch.equal, [y, *found[:-2]], unkept)):
        raise RuntimeError("without keeping what backward needs, forward has other results")
    return _named([y, *finals], gradients)


def _by_steps(cell: Cell, given: tuple[Any, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    x, *lists, masks, lengths = given
    leaves = [t.to(dtype, copy=True).requires_grad_() for t in (x, *(t for tensors in lists for t in tensors))]
    rest = iter(leaves)
    placed: list[Any] = [next(rest), *([next(rest) for _ in tensors] for tensors in lists)]
    placed += [[m.to(dtype) for m in masks], lengths]
    with torch.inference_mode(False), torch.enable_grad():
        every, finals = run_steps(cell, *placed)
        outputs = [every[0], *finals]
        tracked = [(o, d) for o, d in zip(outputs, _cotangents(cell, outputs), strict=True) if o.requires_grad]
        gradients = torch.autograd.grad(
            [o for o, _ in tracked], leaves, [d for _, d in tracked], allow_unused=True, materialize_grads=True
        )
    return _named([o.detach() for o in outputs], list(gradients))


def _named(outputs: list[Tensor], gradients: list[Tensor]) -> dict[str, Tensor]:
    found = {"y": outputs[0]} | {f"final state {k}": t for k, t in enumerate(outputs[1:])}
    return found | {f"gradient {k}": t for k, t in enumerate(gradients)}
