"""A long text as parallel streams, read chunk by chunk: each row of a batch goes on where it stopped in the batch before."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from seqnets.data.batch import Batch
from seqnets.data.loader import STRIDE, ResumableLoader, common_options
from seqnets.errors import DataError

LEAST_JITTERED = 20  # steps, below which lengths drawn around them would be of nothing


class Streams(Dataset[Batch]):
    """``batch_size`` equally long parts of a text side by side; an item is a slice of time.

    The targets are the inputs one step on. What is left over, fewer ids than there are streams, is not read.

    Args:
        ids: ``(N,)``.
        batch_size: B.

    Raises:
        DataError: the text is too short for so many streams.
    """

    def __init__(self, ids: Tensor, batch_size: int) -> None:
        length = len(ids) // batch_size
        if length < 2:
            raise DataError(
                f"{len(ids)} tokens are too few for {batch_size} streams of 2: choose a smaller batch_size."
            )
        self.rows = ids[: length * batch_size].view(batch_size, length)

    def __len__(self) -> int:
        """Steps, of which each has a target."""
        return self.rows.shape[1] - 1

    def __getitem__(self, time: slice) -> Batch:
        inputs, targets = self.rows[:, time], self.rows[:, time.start + 1 : time.stop + 1]
        return Batch(inputs.long(), targets.long())


class Chunks(Sampler[slice]):
    """Slices of time, in order, that together cover ``length`` steps.

    Args:
        length: of all.
        steps: of each; the last may be shorter.
        jitter: draw the lengths by (seed, epoch), as Merity et al. 2018 do (arXiv:1708.02182), so that no step is always the
            last whose gradient reaches back: from N(steps, 5), with probability 0.05 from N(steps / 2, 5), at least 5, then
            scaled so that the number of slices is that without jitter.
        seed: of the jitter.
    """

    def __init__(self, length: int, steps: int, jitter: bool = False, seed: int = 0) -> None:
        self.length, self.steps, self.jitter, self.seed = length, steps, jitter, seed
        self.epoch = 0

    @property
    def order(self) -> dict[str, Any]:
        return {"steps": self.steps, "jitter": self.jitter, "streams seed": self.seed if self.jitter else None}

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.length // self.steps)

    def __iter__(self) -> Iterator[slice]:
        ends = self._drawn() if self.jitter else [min(self.length, self.steps * (k + 1)) for k in range(len(self))]
        start = 0
        for end in ends:
            yield slice(start, end)
            start = end

    def _drawn(self) -> list[int]:
        generator = torch.Generator().manual_seed(STRIDE * self.seed + self.epoch)
        middle = torch.where(torch.rand(len(self), generator=generator) < 0.05, self.steps / 2, float(self.steps))
        lengths = (middle + 5 * torch.randn(len(self), generator=generator)).clamp(min=5)
        ends = lengths.double().cumsum(0)
        return (ends * self.length / ends[-1]).round().long().tolist()


def train_streams(
    ids: Tensor, batch_size: int, steps: int, jitter: bool, seed: int, num_workers: int
) -> ResumableLoader:
    """Chunks in order; their lengths depend on (``seed``, epoch) where they vary."""
    streams = Streams(ids, batch_size)
    chunks = Chunks(len(streams), steps, jitter, seed)
    return ResumableLoader(streams, None, sampler=chunks, **common_options(num_workers))


def eval_streams(ids: Tensor, batch_size: int, steps: int, num_workers: int) -> DataLoader[Batch]:
    streams = Streams(ids, batch_size)
    return DataLoader(streams, None, sampler=Chunks(len(streams), steps), **common_options(num_workers))
