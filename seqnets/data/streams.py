"""Reads a long text as parallel streams, chunk by chunk.

Each row of a batch continues where it stopped in the batch before.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from seqnets.data.batch import Batch
from seqnets.data.loader import STRIDE, ResumableLoader, common_options
from seqnets.errors import DataError

LEAST_JITTERED = 20  # the fewest steps that lengths can be drawn around without becoming too short


class Streams(Dataset[Batch]):
    """Holds ``batch_size`` equally long parts of a text side by side. An item is a slice of time.

    The targets are the inputs shifted by one step. Leftover ids, fewer than there are streams, are not read.

    Args:
        ids: ``(N,)``.
        batch_size: B.

    Raises:
        DataError: If the text is too short for so many streams.
    """

    def __init__(self, ids: Tensor, batch_size: int) -> None:
        length = len(ids) // batch_size
        if length < 2:
            raise DataError(
                f"{len(ids)} tokens are too few for {batch_size} streams of 2: choose a smaller batch_size."
            )
        self.rows = ids[: length * batch_size].view(batch_size, length)

    def __len__(self) -> int:
        """Return the number of steps that have a target."""
        return self.rows.shape[1] - 1

    def __getitem__(self, time: slice) -> Batch:
        inputs, targets = self.rows[:, time], self.rows[:, time.start + 1 : time.stop + 1]
        return Batch(inputs.long(), targets.long())


class Chunks(Sampler[slice]):
    """Samples slices of time, in order, that together cover ``length`` steps.

    Args:
        length: the total number of steps.
        steps: the number of steps per slice. The last slice may be shorter.
        jitter: whether to draw the lengths of the slices from (seed, epoch), as Merity et al. 2018 do
            (arXiv:1708.02182), so that gradients are not always cut at the same steps. Lengths come from N(steps, 5),
            or with probability 0.05 from N(steps / 2, 5), and are at least 5. They are then scaled so that the number
            of slices is the same as without jitter.
        seed: the seed of the jitter.
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
    """Return a loader of chunks in order. With jitter, their lengths depend on (``seed``, epoch)."""
    streams = Streams(ids, batch_size)
    chunks = Chunks(len(streams), steps, jitter, seed)
    return ResumableLoader(streams, None, sampler=chunks, **common_options(num_workers))


def eval_streams(ids: Tensor, batch_size: int, steps: int, num_workers: int) -> DataLoader[Batch]:
    streams = Streams(ids, batch_size)
    return DataLoader(streams, None, sampler=Chunks(len(streams), steps), **common_options(num_workers))
