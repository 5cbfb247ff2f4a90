"""The first of several places that has a data set: on disk, a download, a hub, a package."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from seqnets.errors import ConfigError, DataError

log = logging.getLogger(__name__)

Found = TypeVar("Found")


class Unavailable(DataError):
    """A source is not there at all, unlike one that is there and damaged: `auto` tries the next."""


def check_choice(path: str | os.PathLike[str] | None, source: str, sources: Iterable[str]) -> None:
    """Raises ConfigError if there is no such source, or if it takes no path."""
    names = list(sources)
    if source not in ("auto", *names):
        raise ConfigError(f"There is no source {source!r}: choose among auto, {', '.join(names)}.")
    if path is not None and source not in ("auto", "local"):
        raise ConfigError(f"A path is read from disk, never from source={source}: leave one of the two out.")


def first_available(what: str, sources: Mapping[str, Callable[[], Found]], source: str = "auto") -> Found:
    """What the source named gives; with "auto", the first that is not `Unavailable`.

    Raises:
        DataError: none of them has it; the message says for each what to do about it.
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
    """The folder `path`, else that of the data set `name` in ``SEQNETS_DATA``.

    Raises:
        Unavailable: no path is given, and the variable names no folder that has it.
        DataError: the path given is no folder.
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
