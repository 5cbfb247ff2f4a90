"""Finds and makes the folders of what seqnets can make again, for its user alone."""

import os
import stat
import tempfile
from functools import cache
from pathlib import Path

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_directory() -> Path:
    """``$SEQNETS_CACHE``, else ``seqnets`` in the user's cache folder; without a home, a folder of temporary files."""
    if folder := os.environ.get("SEQNETS_CACHE"):
        return Path(folder).expanduser()
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder, "seqnets")
    try:
        return Path.home() / ".cache" / "seqnets"
    except RuntimeError:  # as some containers have it
        return _temporary()


@cache
def _temporary() -> Path:
    """The user's own, for this process and later ones; what anybody may write would not be the user's."""
    path = Path(tempfile.gettempdir(), f"seqnets-{os.getuid()}")
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()  # whatever a link leads to, whoever made the link can lead it elsewhere
    except OSError:
        return Path(tempfile.mkdtemp(prefix="seqnets-"))
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return path if mine else Path(tempfile.mkdtemp(prefix="seqnets-"))


def make_private(folder: Path) -> None:
    """Make a folder, and those around it that are missing, for the user alone. One that exists stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def is_trusted(found: os.stat_result) -> bool:
    """Tell whether only the user or root can have written what `os.lstat` or `os.stat` found."""
    if not hasattr(os, "getuid"):  # on Windows, where these bits mean nothing
        return True
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & OTHERS_WRITE
