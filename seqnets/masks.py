"""Random masks that cells take as arguments: recurrent dropout, variational dropout, zoneout."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mask:
    """How a layer draws one of its cell's masks: zero with probability `p`, drawn anew per sequence or per time step.

    Args:
        p: probability of a zero, in [0, 1), as in `torch.nn.Dropout`.
        per: ``"sequence"``: one mask for all time steps (Gal and Ghahramani, arXiv:1512.05287); ``"step"``: another
            at each (recurrent dropout, Semeniuta et al., arXiv:1603.05118; zoneout, Krueger et al., arXiv:1606.01305).
        scale: divide what is kept by 1 - p, so that the mean is 1 (dropout); without, entries are 0 or 1 (zoneout).

    Out of training a mask is its mean: 1 where scaled, else 1 - p.
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
        """A mask of shape ``(B, H)``, or ``(T, B, H)`` per step, with the device and dtype of `like`."""
        shape = (batch, hidden_size) if self.per == "sequence" else (steps, batch, hidden_size)
        kept = 1 - self.p
        if not training:
            return torch.full(shape, 1.0 if self.scale else kept, device=like.device, dtype=like.dtype)
        return (
            torch.empty(shape, device=like.device, dtype=like.dtype).bernoulli_(kept).div_(kept if self.scale else 1.0)
        )
