"""Provides the base class of data modules that hold all their data in memory."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from seqnets.data.batch import Batch
from seqnets.data.loader import ResumableLoader, eval_loader, train_loader
from seqnets.errors import ConfigError


class Loaded(NamedTuple):
    """Holds what `InMemory._load` returns.

    Attributes:
        splits: ``train`` and ``test``, and optionally ``validation``. Unless the loaders are overridden, a split (such
            as `Examples`) has ``__len__``, and ``__getitems__``, which returns a whole `Batch` for a list of indices.
        provenance: where the data come from, as plain types.
    """

    splits: Mapping[str, Any]
    provenance: dict[str, Any]


class InMemory(LightningDataModule):
    """Provides splits of examples as batches of inputs and targets. A subclass loads the data in `_load`.

    Args:
        batch_size: B in training.
        eval_batch_size: B in validation and test.
        validation_fraction: the part of the training split that is held out for validation, the same for every seed.
        num_workers: the number of loader processes. 0 is fastest, because the data are in memory.
        seed: determines the order of training, together with the epoch.

    Attributes:
        encoder: turns user input into model inputs (`encode`); available once `setup` has run.
        labels: the class names, indexed by target.
        licence: the license of the data, as far as it is known; empty for synthetic data.

    Raises:
        ConfigError: If an argument is invalid.
        DataError: From ``prepare_data`` or ``setup``, if the data are missing, incomplete or damaged.
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
        """Load the data. Called once."""

    def example(self) -> Batch:
        """Return a batch of one example, to check a model with. `setup` must have run."""
        return self._splits["train"].__getitems__([0])

    def prepare_data(self) -> None:
        """Find, encode and cache the data, once per machine."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Load all splits. ``encoder`` and the loaders are available from here on."""
        if not self._splits:
            self._splits, self._provenance = self._load()

    def train_dataloader(self) -> ResumableLoader:
        return train_loader(self._splits["train"], self.batch_size, self.seed, self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return the validation loader, or an empty list, which tells Lightning that there is none."""
        if "validation" not in self._splits:
            return []
        return eval_loader(self._splits["validation"], self.eval_batch_size, self.num_workers)

    def test_dataloader(self) -> DataLoader[Batch]:
        return eval_loader(self._splits["test"], self.eval_batch_size, self.num_workers)

    def provenance(self) -> dict[str, Any]:
        """Return where the data come from, as plain types.

        The keys include source, location, rows per split, fingerprint (SHA-256 of the data), note and license.
        """
        return self._provenance | {"licence": self.licence}


def check_integers(**values: tuple[Any, int]) -> None:
    """Check that each value, given as ``name=(value, minimum)``, is an integer of at least its minimum.

    Raises:
        ConfigError: If a value is not.
    """
    for name, (value, least) in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{name} is {value!r}, but must be an integer of at least {least}.")
