"""Defines the random masks that cells take as arguments: recurrent dropout, variational dropout, zoneout."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """Describes how a layer samples one of its cell's masks: zero with probability `p`, per sequence or per time step.

    Args:
        p: probability of a zero, in [0, 1), as in `torch.nn.Dropout`.
        per: ``"sequence"`` samples one mask for all time steps (Gal and Ghahramani, arXiv:1512.05287); ``"step"``
            samples a new one at each step (recurrent dropout, Semeniuta et al., arXiv:1603.05118; zoneout, Krueger et
            al., arXiv:1606.01305).
        scale: whether kept entries are divided by 1 - p, so that the mean is 1 (dropout). If False, entries are 0 or 1
            (zoneout).

    In evaluation mode, a mask is its mean: 1 if scaled, else 1 - p.

    Raises:
        ValueError: If `p` or `per` is out of range.
    """

    p: float
    per: Literal["sequence", "step"] = "sequence"
    scale: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.p < 1:
            raise ValueError(f"mask probability p must lie in [0, 1), got {self.p}")
        if self.per not in ("sequence", "step"):
            raise ValueError(f"a mask is drawn per 'sequence' or per 'step', not per {self.per!r}")

    def draw(self, steps: int, batch: int, hidden_size: int, like: Tensor, training: bool) -> Tensor:
        """Sample a mask of shape ``(B, H)``, or ``(T, B, H)`` if per step, with the device and dtype of `like`."""
        shape = (batch, hidden_size) if self.per == "sequence" else (steps, batch, hidden_size)
        kept = 1 - self.p
        if not training:
            return torch.full(shape, 1.0 if self.scale else kept, device=like.device, dtype=like.dtype)
        return (
            torch.empty(shape, device=like.device, dtype=like.dtype).bernoulli_(kept).div_(kept if self.scale else 1.0)
        )
