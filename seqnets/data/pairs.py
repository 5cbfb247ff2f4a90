"""Provides pairs of sequences that differ in length, and an order of them that needs little padding."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from seqnets.data.batch import Batch


class Pairs(Dataset[Batch]):
    """Holds rows of input ids and of target ids in compact types. A batch is cut to its longest rows.

    Args:
        inputs: ``(N, S)`` ids, padded at the end.
        targets: ``(N, T)`` ids, padded at the end.
        padding: the id of the padding.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, padding: int) -> None:
        self.inputs, self.targets = inputs, targets
        self.lengths, self.target_lengths = (inputs != padding).sum(1), (targets != padding).sum(1)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return the whole batch at once. DataLoader calls this method where it exists."""
        rows = torch.tensor(indices)
        lengths = self.lengths[rows]
        inputs = self.inputs[rows, : int(lengths.max())]
        targets = self.targets[rows, : int(self.target_lengths[rows].max())]
        return Batch(inputs.long(), targets.long(), lengths)


class BySize(Sampler[int]):
    """Samples rows of similar sizes side by side, so that batches of `batch_size` need little padding.

    The batches come in random order. The order depends on (``seed``, epoch) alone: which rows of one size share a batch
    differs from epoch to epoch. Rows that do not fill a batch come last, whatever their sizes.

    Args:
        sizes: ``(N, K)``, K numbers to sort by, the most significant first.
        batch_size: B.
        seed: the seed of the order.
    """

    def __init__(self, sizes: np.ndarray, batch_size: int, seed: int) -> None:
        self.sizes, self.batch_size, self.seed, self.epoch = sizes, batch_size, seed, 0

    @property
    def order(self) -> dict[str, object]:
        """Return what the order depends on, for checkpoints."""
        return {"seed": self.seed, "by": "size"}

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[int]:
        draw = np.random.default_rng([self.seed, self.epoch])
        shuffled = draw.permutation(len(self.sizes))
        full = len(shuffled) // self.batch_size * self.batch_size
        some = shuffled[:full]
        some = some[np.lexsort(self.sizes[some].T[::-1])]  # equal sizes stay shuffled
        batches = draw.permutation(some.reshape(-1, self.batch_size))
        yield from np.concatenate([batches.ravel(), shuffled[full:]]).tolist()
