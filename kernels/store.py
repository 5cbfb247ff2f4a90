"""Keeps small results of this machine on disk between processes, such as verdicts of checks and measured plans."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

from seqnets.folders import cache_directory, make_private
from seqnets.kernels.availability import triton_version
from seqnets.source import digest

log = logging.getLogger(__name__)

T = TypeVar("T")

PACKAGE = Path(__file__).parent


def read(kind: str, key: Mapping[str, Any], parse: Callable[[Any], T]) -> T | None:
    """Return the value stored under `key`, or None if there is none or it cannot be used.

    Args:
        kind: The first part of the file name.
        key: Everything that the value depends on.
        parse: Converts the stored JSON value. Raises ValueError, KeyError or TypeError if it is not what was written.
    """
    path = _path(kind, key)
    try:
        return parse(json.loads(path.read_text(encoding="utf-8"))["value"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be used (%s); it is found out again.", path, error)
        return None


def verdict(value: Any) -> dict[str, str | None]:
    """Parse a stored verdict, for `read`: `why` is the reason why a check refuses kernels, or None.

    Raises:
        TypeError: The value is not a verdict.
    """
    if not isinstance(value["why"], str | None):
        raise TypeError(f"a verdict says why, and this {value!r}")
    return {"why": value["why"]}


def write(kind: str, key: Mapping[str, Any], value: Any) -> None:
    """Store `value` (JSON types) under `key`. If the folder cannot be written, log a warning and continue."""
    path = _path(kind, key)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    content = json.dumps({"key": dict(key), "value": value}, indent=1, default=str)
    try:
        make_private(path.parent)
        try:
            temporary.write_text(content, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s cannot be written (%s); the next process will find it out again.", path, error)


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Hold a file lock, so that of several processes only one does the work while the others wait for it.

    After `seconds`, or where the folder cannot be written or has no locks, the block runs without the lock. Then
    several processes may do the same work, which is slower but just as correct.
    """
    from filelock import FileLock, Timeout  # a dependency of torch

    lock = FileLock(path)
    try:
        make_private(path.parent)
        lock.acquire(timeout=seconds)
    except (Timeout, OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _path(kind: str, key: Mapping[str, Any]) -> Path:
    content = json.dumps(dict(key), sort_keys=True, default=str)
    return cache_directory() / "kernels" / f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:20]}.json"


@cache
def environment(device: torch.device) -> dict[str, Any]:
    """Return what stored results depend on besides the kernel: GPU, driver, versions and source of this package."""
    return {
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter",
        "cuda": torch.version.cuda or torch.version.hip,
        "driver": _driver() if device.type == "cuda" else None,
        "torch": torch.__version__,
        "triton": triton_version(),
        "kernels": digest([PACKAGE]),
    }


def _driver() -> str | None:
    get = getattr(torch._C, "_cuda_getDriverVersion", None)
    return str(get()) if get else None
