"""Loaders over tensors in memory: a batch is one index operation, an epoch can be resumed at any batch."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from seqnets.data.batch import Batch
from seqnets.errors import ConfigError

# Of torch's samplers DistributedSampler alone has an order by seed and epoch, and Lightning tells it the epoch.
# It adds the epoch to the seed: seeds this far apart never share an order.
STRIDE = 1_000_003


class Examples(Dataset[Batch]):
    """Rows of inputs with their targets, however compactly they are kept: integers come out as int64, images of uint8 as
    float32 from 0 to 1.
    """

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Batch:
        return Batch(_unpacked(self.inputs[index]), _unpacked(self.targets[index]))

    def __getitems__(self, indices: list[int]) -> Batch:
        """The whole batch at once; DataLoader asks for it where it exists."""
        rows = torch.tensor(indices)
        return Batch(_unpacked(self.inputs[rows]), _unpacked(self.targets[rows]))


def _unpacked(values: Tensor) -> Tensor:
    if values.dtype is torch.uint8:
        return values.float() / 255
    return values if values.dtype.is_floating_point else values.long()


class ResumableLoader(DataLoader[Batch]):
    """A DataLoader that continues in the middle of an epoch.

    By ``state_dict`` and ``load_state_dict`` Lightning keeps its position in checkpoints: the first iteration
    after loading gives the remaining batches of that epoch only. A batch counts once it is handed out, so a
    checkpoint written by an exception handler counts the batch that failed as done.
    """

    _position = (0, 0)  # epoch, batches of it handed out
    _resuming = False

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A generator, so nothing happens before the first batch is asked for: on resuming, Lightning creates
        # the iterator first and tells the sampler its epoch afterwards.
        done = self._batches_done() if self._resuming else 0
        self._resuming = False
        self._position = self._epoch(), done
        for batch in islice(super().__iter__(), done, None):  # skipped batches cost an index operation each
            self._position = self._epoch(), self._position[1] + 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The position and, as it means nothing in another order, what the order depends on."""
        return {"epoch": self._epoch(), "batches": self._batches_done(), "order": self._order()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Makes the next iteration continue there.

        Raises:
            ConfigError: the order of this loader is another one.
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
        return getattr(self.sampler, "epoch", 0)  # Lightning's overfit_batches puts a sequential sampler in

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
    """Batches in an order that depends on (``seed``, epoch) alone."""
    sampler: DistributedSampler = DistributedSampler(data, num_replicas=1, rank=0, seed=STRIDE * seed)
    return ResumableLoader(data, batch_size, sampler=sampler, **common_options(num_workers))


def eval_loader(data: Any, batch_size: int, num_workers: int = 0) -> DataLoader[Batch]:
    """Batches in one fixed order, shuffled once and for all: files lie sorted by label, and a part of the batches
    (``limit_test_batches``) must be a fair sample."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    return DataLoader(data, batch_size, sampler=order, **common_options(num_workers))


def common_options(num_workers: int) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "collate_fn": _as_it_is,
        "pin_memory": torch.cuda.is_available(),
        # DataLoader draws a seed per iteration: from here, so that loading leaves the global state alone.
        "generator": torch.Generator(),
    }


def _as_it_is(batch: Batch) -> Batch:
    return batch
