"""Provides windows of a time series and the values that follow them: the sunspots, or a series from a file."""

import csv
import hashlib
import math
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqnets.data.in_memory import InMemory, Loaded, check_integers
from seqnets.data.loader import Examples
from seqnets.errors import ConfigError, DataError
from seqnets.optional import needed


class SeriesEncoder:
    """Turns numbers into model inputs: the last ``window`` of them, as ``(x - mean) / std``.

    Args:
        mean, std: the mean and standard deviation of the training values.
        window: T.
        recent: the last values of the series, as an example input.
    """

    kind = "series"

    def __init__(self, mean: float, std: float, window: int, recent: Sequence[float]) -> None:
        self.mean, self.std, self.window, self.recent = mean, std, window, list(recent)

    @property
    def usage(self) -> str:
        return '"' + " ".join(f"{value:g}" for value in self.recent) + '"'

    def encode(self, given: Sequence[str]) -> Tensor:
        """Encode B lines of numbers, each from the oldest to the newest, as ``(B, window, 1)``.

        Raises:
            ValueError: If something is not a finite number, or a line has fewer than ``window`` numbers. The message
                names it.
        """
        return self.scale(torch.tensor([self._numbers(line) for line in given])).unsqueeze(-1)

    def _numbers(self, line: str) -> list[float]:
        numbers = []
        for word in line.replace(",", " ").split():
            try:
                numbers.append(float(word))
            except ValueError:
                numbers.append(math.nan)
            if not math.isfinite(numbers[-1]):
                raise ValueError(f"{word!r} is no number: give numbers with spaces between them, the newest last")
        if len(numbers) < self.window:
            raise ValueError(
                f"the model looks back {self.window} steps, "
                f"but {line[:40]!r} has {len(numbers)} numbers: give {self.window} or more"
            )
        return numbers[-self.window :]

    def scale(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std

    def unscale(self, values: Tensor) -> Tensor:
        return values * self.std + self.mean

    def to_dict(self) -> dict[str, Any]:
        fields = {"mean": self.mean, "std": self.std, "window": self.window, "recent": self.recent}
        return {"kind": self.kind, **fields}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "SeriesEncoder":
        return cls(state["mean"], state["std"], state["window"], state["recent"])


class Series(InMemory):
    """Provides windows of a series as inputs, and the values that follow each window as targets.

    The inputs are ``(B, window, 1)``, the targets ``(B, horizon)``, both scaled. The splits follow each other in time:
    training, validation, test. A window belongs to the split that has all its targets. It may reach back into the split
    before, as a real forecast could. The mean and standard deviation are those of the training values alone.

    Args:
        path: a CSV file with the columns ``time,value``, ordered by time. If None, the yearly sunspot numbers 1700-2008
            that come with statsmodels.
        window: T, the number of steps to look back.
        horizon: the number of steps to forecast at once.
        test_fraction: the part of the series, at its end, that is held out for the test.
        validation_fraction: the part of the remaining series, at its end, that is held out for validation.
        season: the number of steps after which the series roughly repeats, for a baseline: 11 years for the sunspots.
        batch_size, eval_batch_size, num_workers, seed: as `InMemory` takes them.
        encoder: the encoder of a trained model.

    Attributes:
        times: the names of the ``N`` steps.
        values: ``(N,)`` float32, unscaled.
        bounds: for each split by name, its first step and the first step after it.

    Raises:
        ConfigError: If an argument is invalid.
        DataError: From ``prepare_data`` or ``setup``, if the series is missing, damaged or too short.
    """

    encoder: SeriesEncoder

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        window: int = 33,
        horizon: int = 1,
        test_fraction: float = 0.2,
        validation_fraction: float = 0.2,
        season: int = 11,
        batch_size: int = 16,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        encoder: SeriesEncoder | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, validation_fraction, num_workers, seed)
        check_integers(window=(window, 1), horizon=(horizon, 1), season=(season, 1))
        if not 0 < test_fraction < 1:
            raise ConfigError(f"test_fraction is {test_fraction}, but must be above 0 and below 1.")
        if season > window:
            raise ConfigError(
                f"season={season} is beyond window={window}: the seasonal baseline looks back a whole season."
            )
        if encoder is not None and encoder.window != window:
            raise ConfigError(f"window is {window}, but the trained model looks back {encoder.window} steps.")
        self.path, self.window, self.horizon, self.season = path, window, horizon, season
        self.test_fraction, self._trained_encoder = test_fraction, encoder
        self.licence = "public domain" if path is None else ""

    @property
    def train_values(self) -> Tensor:
        return self.values[: self.bounds["train"][1]]

    def _load(self) -> Loaded:
        (self.times, numbers), origin = _sunspots() if self.path is None else _read_csv(Path(self.path).expanduser())
        self.values = torch.tensor(numbers)
        self.bounds = self._split(len(numbers), origin["location"])
        train = self.train_values.double()
        if not train.std() > 0:
            raise DataError(f"{origin['location']}: all values to train on are equal, so there is nothing to forecast.")
        fitted = SeriesEncoder(float(train.mean()), float(train.std()), self.window, numbers[-self.window :])
        self.encoder = self._trained_encoder or fitted
        scaled = self.encoder.scale(self.values)
        splits = {}
        for name, (start, end) in self.bounds.items():
            first = max(start, self.window)  # first step of the targets
            windows = scaled[first - self.window : end].unfold(0, self.window + self.horizon, 1)
            splits[name] = Examples(windows[:, : self.window, None], windows[:, self.window :])
        digest = hashlib.sha256(repr((self.times, numbers)).encode()).hexdigest()
        rows = {name: len(split) for name, split in splits.items()}
        return Loaded(splits, origin | {"rows": rows, "fingerprint": digest})

    def _split(self, count: int, where: str) -> dict[str, tuple[int, int]]:
        test = count - round(self.test_fraction * count)
        validation = test - round(self.validation_fraction * test)
        bounds = {"train": (0, validation), "validation": (validation, test), "test": (test, count)}
        if validation == test:
            del bounds["validation"]
        for name, (start, end) in bounds.items():
            if end - max(start, self.window) < self.horizon:
                raise DataError(
                    f"{where} has {count} values, of which {end - start} are for {name}: "
                    f"too few for a window of {self.window} and a horizon of {self.horizon}. Give a longer series, "
                    "or smaller ones of data.window, data.horizon and the fractions."
                )
        return bounds


def _sunspots() -> tuple[tuple[list[str], list[float]], dict[str, Any]]:
    datasets = needed("statsmodels.datasets", "the sunspots, where data.path names no other series,")
    table = datasets.sunspots.load_pandas().data
    read = [str(int(year)) for year in table["YEAR"]], [float(value) for value in table["SUNACTIVITY"]]
    return read, {"source": "package", "location": f"statsmodels {version('statsmodels')}", "note": "yearly sunspots"}


def _read_csv(file: Path) -> tuple[tuple[list[str], list[float]], dict[str, Any]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
        times, values = [row["time"] for row in rows], [float(row["value"]) for row in rows]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} is no CSV file with the columns time,value and a number in each row: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not all(map(math.isfinite, values)):
        raise DataError(f"{file} has a value that is no finite number: leave that time out, or fill it in.")
    return (times, values), {"source": "local", "location": str(file), "note": ""}
