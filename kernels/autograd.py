"""Computes gradients with the cell's own step where generated kernels cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.conditions import in_functional_transform
from seqnets.errors import BackendError

# Maps the inputs to the states: those of all steps, and the last ones
RunSteps = Callable[[list[Tensor]], tuple[Sequence[Tensor], Sequence[Tensor]]]


def needs_step(cotangents: Iterable[Tensor | None]) -> bool:
    """Return True if these gradients must be computed by the cell's step.

    Kernels see plain numbers. Their gradients cannot be differentiated again (``create_graph=True``). They do not
    support cotangents that vmap batches (``is_grads_batched=True``, ``jacobian(vectorize=True)``) or that carry
    tangents.
    """
    return torch.is_grad_enabled() or in_functional_transform(d for d in cotangents if d is not None)


def gradients_by_step(
    cell: Cell,
    numbers: Mapping[str, float],
    run: RunSteps,
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Return the gradients of all inputs, with None for inputs that do not require one.

    Args:
        cell: The cell, whose step `run` calls.
        numbers: The numbers that the step read from outside when the kernels were generated.
        run: Computes the outputs from the inputs with the cell's step.
        inputs: The inputs of the forward pass.
        cotangents: Gradients of the outputs: of the states of all steps, then of the last states. None where there is
            none.

    Raises:
        BackendError: One of the numbers has changed, so the step is no longer that of the forward pass.
    """
    if outdated := cell.why_outdated(numbers):
        raise BackendError(f"these gradients are computed by the cell's step, and {outdated}")
    with torch.enable_grad():
        # Use aliases: inputs may depend on each other, be the same tensor or have hooks. Autograd outside handles that.
        inputs = [t.view_as(t) for t in inputs]
        every, finals = run(inputs)
    # The step may return constants, which have no gradients.
    pairs = [(o, d) for o, d in zip([*every, *finals], cotangents, strict=True) if d is not None and o.requires_grad]
    needed = [t for t in inputs if t.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs],
            needed,
            [d.reshape(o.shape) for o, d in pairs],
            create_graph=torch.is_grad_enabled(),
            allow_unused=True,
        )
    )
    return [next(found) if t.requires_grad else None for t in inputs]
