"""Where seqnets keeps what it can make again."""

import os
import tempfile
from functools import cache
from pathlib import Path


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
        found = path.stat()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="seqnets-"))
    mine = found.st_uid == os.getuid() and not found.st_mode & 0o077
    return path if mine else Path(tempfile.mkdtemp(prefix="seqnets-"))
