"""Finds and creates private cache folders, for files that seqnets can create again."""

import os
import stat
import tempfile
from functools import cache
from pathlib import Path

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_directory() -> Path:
    """Return the folder that holds the caches.

    This is ``$SEQNETS_CACHE``, else ``seqnets`` in the user's cache folder. A user without a home folder gets a private
    folder among the temporary files.
    """
    if folder := os.environ.get("SEQNETS_CACHE"):
        return Path(folder).expanduser()
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder, "seqnets")
    try:
        return Path.home() / ".cache" / "seqnets"
    except RuntimeError:  # there is no home folder, as in some containers
        return _temporary()


@cache
def _temporary() -> Path:
    """Return a temporary folder that only the user can write to, for this process and later ones.

    If a folder of that name exists and is not private, a new one is created for this process alone.
    """
    path = Path(tempfile.gettempdir(), f"seqnets-{os.getuid()}")
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()  # not stat: whoever made a link can redirect it later
    except OSError:
        return Path(tempfile.mkdtemp(prefix="seqnets-"))
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return path if mine else Path(tempfile.mkdtemp(prefix="seqnets-"))


def make_private(folder: Path) -> None:
    """Create a folder and its missing parents, accessible to the user alone. An existing folder stays as it is.

    Raises:
        OSError: If it cannot be created.
    """
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def is_trusted(found: os.stat_result) -> bool:
    """Tell whether only the user or root can have written the file that `os.lstat` or `os.stat` describes."""
    if not hasattr(os, "getuid"):  # on Windows these bits mean nothing
        return True
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & OTHERS_WRITE
