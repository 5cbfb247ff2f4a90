"""Where seqnets keeps what it can make again."""

import getpass
import os
import tempfile
from pathlib import Path


def cache_directory() -> Path:
    """``$SEQNETS_CACHE``, else ``seqnets`` in the user's cache folder; without a home, in the folder of temporary files."""
    if folder := os.environ.get("SEQNETS_CACHE"):
        return _expand(folder)
    return _expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "seqnets"


def _expand(folder: str) -> Path:
    try:
        return Path(folder).expanduser()
    except RuntimeError:  # a user without a home, in a container say
        return Path(tempfile.gettempdir(), f"cache-{_user()}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # nor a name
        return str(os.getuid())
