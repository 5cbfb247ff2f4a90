"""Finds the first of several sources that has a data set: a local folder, a download, a hub or a package."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from seqnets.errors import ConfigError, DataError

log = logging.getLogger(__name__)

Found = TypeVar("Found")


class Unavailable(DataError):
    """Raised when a source is not there at all, unlike one that is there but damaged: "auto" tries the next source."""


def check_choice(path: str | os.PathLike[str] | None, source: str, sources: Iterable[str]) -> None:
    """Check that `source` is "auto" or one of `sources`, and that it takes a path if one is given.

    Raises:
        ConfigError: If not.
    """
    names = list(sources)
    if source not in ("auto", *names):
        raise ConfigError(f"There is no source {source!r}: choose among auto, {', '.join(names)}.")
    if path is not None and source not in ("auto", "local"):
        raise ConfigError(f"A path is read from disk, never from source={source}: leave one of the two out.")


def first_available(what: str, sources: Mapping[str, Callable[[], Found]], source: str = "auto") -> Found:
    """Read from the source named; with "auto", from the first one that is not `Unavailable`.

    Raises:
        DataError: If no source has the data. The message says for each what to do about it.
    """
    if source != "auto":
        return sources[source]()
    reasons = []
    for name, read in sources.items():
        try:
            found = read()
        except Unavailable as error:
            reasons.append(f"  {name}: {error}")
            continue
        for reason in reasons:
            log.info("%s: nothing from source%s", what, reason)
        return found
    raise DataError("\n".join([f"There are no {what} at hand; any one of these would do.", *reasons]))


def local_folder(path: str | os.PathLike[str] | None, name: str) -> Path:
    """Return the folder `path`, or else the folder of the data set `name` in ``$SEQNETS_DATA``.

    Raises:
        Unavailable: If no path is given and the variable is not set, or its folder lacks the data set.
        DataError: If the path given is not a folder.
    """
    if path is not None:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder: give the one that holds the files, or leave data.path out.")
        return folder
    if not (root := os.environ.get("SEQNETS_DATA")):
        raise Unavailable(f"Set SEQNETS_DATA to the folder that holds {name}/, or give data.path=<that folder itself>.")
    folder = Path(root).expanduser() / name
    if not folder.is_dir():
        raise Unavailable(f"SEQNETS_DATA is {root}, where there is no folder {name}: put its files there.")
    return folder
