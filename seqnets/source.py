"""Identifies the source that is running."""

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path


def commit() -> str | None:
    """Return the commit of the clone that this package runs from, or None outside a clone or if git fails.

    ``+changes`` is appended if tracked files differ from the commit.
    """
    root = Path(__file__).parents[1]
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


def digest(folders: Iterable[Path], suffixes: tuple[str, ...] = (".py",)) -> str:
    """Return the SHA-256 digest of all files below the folders that have one of the suffixes, in hexadecimal."""
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in suffixes):
            found.update(path.read_bytes())
    return found.hexdigest()
