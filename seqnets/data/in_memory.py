"""Data that lie in memory: splits of examples, loaders over them, where they came from."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from seqnets.data.batch import Batch
from seqnets.data.loader import ResumableLoader, eval_loader, train_loader
from seqnets.errors import ConfigError


class Loaded(NamedTuple):
    """What `InMemory._load` gives: ``train`` and ``test``, perhaps ``validation``, and their origin as plain types.

    A split, such as `Examples`, has ``__len__`` and, for a list of indices, ``__getitems__``, a whole `Batch`.
    """

    splits: Mapping[str, Any]
    provenance: dict[str, Any]


class InMemory(LightningDataModule):
    """Splits of examples as batches of inputs and targets. A subclass says in `_load` where they come from.

    Args:
        batch_size: B in training.
        eval_batch_size: B in validation and test.
        validation_fraction: part of the training split kept for validation, the same for every seed.
        num_workers: processes that load; 0 is fastest, as the data lie in memory.
        seed: with the epoch, decides the order of training.

    Attributes:
        encoder: turns what a user gives into inputs (`encode`), once `setup` ran.
        labels: the names of the classes, by target.
        licence: of the data, as far as it is known; empty where they are made.

    Raises:
        ConfigError: an argument cannot work.
        DataError: from ``prepare_data`` or ``setup``; the data are missing, incomplete or damaged.
    """

    encoder: Any
    labels: tuple[str, ...] = ()
    licence: str = ""

    def __init__(
        self, batch_size: int, eval_batch_size: int, validation_fraction: float, num_workers: int, seed: int
    ) -> None:
        super().__init__()
        check_integers(batch_size=(batch_size, 1), eval_batch_size=(eval_batch_size, 1))
        check_integers(num_workers=(num_workers, 0), seed=(seed, 0))
        if not 0 <= validation_fraction < 1:
            raise ConfigError(f"validation_fraction is {validation_fraction}, but must be at least 0 and below 1.")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.validation_fraction, self.num_workers, self.seed = validation_fraction, num_workers, seed
        self._splits: Mapping[str, Any] = {}
        self._provenance: dict[str, Any] = {}

    @abstractmethod
    def _load(self) -> Loaded:
        """Called once."""

    def example(self) -> Batch:
        """A batch of one to try a model on, once `setup` ran."""
        return self._splits["train"].__getitems__([0])

    def prepare_data(self) -> None:
        """Finds, encodes and caches the data, once per machine."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Loads all splits; ``encoder`` and the loaders exist from here on."""
        if not self._splits:
            self._splits, self._provenance = self._load()

    def train_dataloader(self) -> ResumableLoader:
        return train_loader(self._splits["train"], self.batch_size, self.seed, self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The validation loader, or an empty list, Lightning's way to say that there is none."""
        if "validation" not in self._splits:
            return []
        return eval_loader(self._splits["validation"], self.eval_batch_size, self.num_workers)

    def test_dataloader(self) -> DataLoader[Batch]:
        return eval_loader(self._splits["test"], self.eval_batch_size, self.num_workers)

    def provenance(self) -> dict[str, Any]:
        """Source, location, rows per split, fingerprint (SHA-256 of the data), note and licence, as plain types."""
        return self._provenance | {"licence": self.licence}


def check_integers(**values: tuple[Any, int]) -> None:
    """Raises ConfigError where a value, given with the least it may be, is not an integer of that size."""
    for name, (value, least) in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{name} is {value!r}, but must be an integer of at least {least}.")
