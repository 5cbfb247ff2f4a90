"""Provides learning rate schedules by step that torch does not have."""

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class InverseTime(LRScheduler):
    """Divides the initial learning rate by 1 + `decay` · step, as Keras's legacy ``decay=`` does.

    Raises:
        ValueError: If `decay` is negative.
    """

    def __init__(self, optimizer: Optimizer, decay: float) -> None:
        if decay < 0:
            raise ValueError(f"decay is {decay}, but must not be negative")
        self.decay = decay
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        return [base / (1 + self.decay * self.last_epoch) for base in self.base_lrs]
