"""Computes gradients by the cell's own step, where generated kernels cannot."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seqnets.conditions import in_functional_transform


def needs_step(cotangents: Sequence[Tensor | None]) -> bool:
    """Tell whether these gradients must be computed by the cell's step.

    Kernels see plain numbers. They give no gradients that can be differentiated again (``create_graph=True``), and know nothing
    of cotangents that vmap batches (``is_grads_batched=True``, ``jacobian(vectorize=True)``) or that carry tangents.
    """
    return torch.is_grad_enabled() or in_functional_transform(*(d for d in cotangents if d is not None))


def gradients_by_step(
    outputs: Sequence[Tensor], cotangents: Sequence[Tensor | None], inputs: Sequence[Tensor]
) -> list[Tensor | None]:
    """Return the gradients of all inputs, None of those that require none.

    Args:
        outputs: what the step computed from `inputs`, under `torch.enable_grad`.
        cotangents: gradients of the outputs; None where there is none.
    """
    # the step may return constants
    pairs = [(o, d) for o, d in zip(outputs, cotangents, strict=True) if d is not None and o.requires_grad]
    needed = [t for t in inputs if t.requires_grad]
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
