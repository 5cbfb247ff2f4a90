"""Tell which source this is."""

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path


def commit() -> str | None:
    """Return the commit of the clone this package runs from, ``+changes`` when files differ from it; None outside a clone."""
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
    """Return the SHA-256 of the files in the folders that have these suffixes, in hexadecimal digits."""
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in suffixes):
            found.update(path.read_bytes())
    return found.hexdigest()
