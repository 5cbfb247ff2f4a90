"""Where seqnets keeps what it can make again."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """``$SEQNETS_CACHE``, else ``seqnets`` in the user's cache folder."""
    if folder := os.environ.get("SEQNETS_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "seqnets"
