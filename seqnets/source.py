"""Which source this is."""

import subprocess
from pathlib import Path

import seqnets


def commit() -> str | None:
    """Return the commit of the clone this package runs from, ``+changes`` when files differ from it; None outside a clone."""
    root = Path(seqnets.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "-C", root, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")
