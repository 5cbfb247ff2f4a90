"""Provides loaders over tensors in memory: a batch is one index operation, and an epoch can resume at any batch."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from seqnets.data.batch import Batch
from seqnets.errors import ConfigError

# Only torch's DistributedSampler derives its order from a seed and the epoch, and Lightning sets its epoch.
# It adds the epoch to the seed: seeds this far apart never share an order.
STRIDE = 1_000_003


class Examples(Dataset[Batch]):
    """Holds rows of inputs and their targets in compact types.

    Integers are returned as int64, and uint8 (images) as float32 from 0 to 1.
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Batch:
        return Batch(_unpacked(self.inputs[index]), _unpacked(self.targets[index]))

    def __getitems__(self, indices: list[int]) -> Batch:
        """Return the whole batch at once. DataLoader calls this method where it exists."""
        rows = torch.tensor(indices)
        return Batch(_unpacked(self.inputs[rows]), _unpacked(self.targets[rows]))


def _unpacked(values: Tensor) -> Tensor:
    if values.dtype is torch.uint8:
        return values.float() / 255
    return values if values.dtype.is_floating_point else values.long()


class ResumableLoader(DataLoader[Batch]):
    """Loads batches, and can continue in the middle of an epoch.

    Lightning saves the position in checkpoints through ``state_dict`` and ``load_state_dict``. The first iteration
    after loading yields only the remaining batches of that epoch. A batch counts as done once it is handed out, so a
    checkpoint written by an exception handler counts the batch that failed as done.
    """

    _position = (0, 0)  # epoch, and the number of its batches handed out
    _resuming = False

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # This is a generator, so nothing happens before the first batch is requested: on resuming, Lightning
        # creates the iterator first and sets the sampler's epoch afterwards.
        done = self._batches_done() if self._resuming else 0
        self._resuming = False
        self._position = self._epoch(), done
        for batch in islice(super().__iter__(), done, None):  # skipped batches cost an index operation each
            self._position = self._epoch(), self._position[1] + 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and what the order of the batches depends on.

        A position means nothing in another order.
        """
        return {"epoch": self._epoch(), "batches": self._batches_done(), "order": self._order()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Make the next iteration continue at the saved position.

        Raises:
            ConfigError: If the order of this loader is a different one.
        """
        old, new = state_dict["order"], self._order()
        if changed := [f"{name} was {old.get(name)}, is {new[name]}" for name in new if old.get(name) != new[name]]:
            raise ConfigError(
                f"The checkpoint was written after batch {state_dict['batches']} of an epoch in another order "
                f"({'; '.join(changed)}), so the rest of that epoch is not known. Resume with the same settings."
            )
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(state_dict["epoch"])
        self._position = state_dict["epoch"], state_dict["batches"]
        self._resuming = True

    def _epoch(self) -> int:
        return getattr(self.sampler, "epoch", 0)  # Lightning's overfit_batches sets a sampler without epochs

    def _batches_done(self) -> int:
        epoch, batches = self._position
        return batches if epoch == self._epoch() else 0

    def _order(self) -> dict[str, Any]:
        sampler: Any = self.sampler
        return {
            "rows": len(self.dataset),  # type: ignore[arg-type]
            "batch_size": self.batch_size,
            "seed": sampler.seed // STRIDE if isinstance(sampler, DistributedSampler) else None,
            **getattr(sampler, "order", {}),
        }


def train_loader(data: Any, batch_size: int, seed: int, num_workers: int = 0) -> ResumableLoader:
    """Return a loader whose order depends on (``seed``, epoch) alone."""
    sampler: DistributedSampler = DistributedSampler(data, num_replicas=1, rank=0, seed=STRIDE * seed)
    return ResumableLoader(data, batch_size, sampler=sampler, **common_options(num_workers))


def eval_loader(data: Any, batch_size: int, num_workers: int = 0) -> DataLoader[Batch]:
    """Return a loader with one fixed, shuffled order.

    Files are often sorted by label, and a part of the batches (``limit_test_batches``) must be a fair sample.
    """
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    return DataLoader(data, batch_size, sampler=order, **common_options(num_workers))


def common_options(num_workers: int) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "collate_fn": _as_it_is,
        "pin_memory": torch.cuda.is_available(),
        # DataLoader draws a seed per iteration. Drawn from here, it leaves the global random state alone.
        "generator": torch.Generator(),
    }


def _as_it_is(batch: Batch) -> Batch:
    return batch
