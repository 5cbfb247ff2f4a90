"""Caches arrays that are expensive to compute, in one file per key."""

import hashlib
import io
import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.folders import make_private

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]
_DIGEST = hashlib.sha256().digest_size


def cached(name: str, key: Mapping[str, Any], build: Callable[[], Arrays], directory: Path) -> Arrays:
    """Return the arrays stored under ``key``, or build and store them.

    The cache only saves time and is never a reason to fail: a damaged file is reported and rebuilt, and a folder that
    cannot be written is reported and not used. Processes that start together may all build the arrays. A file appears
    whole or not at all.

    Args:
        name: the first part of the file name.
        key: everything that determines the arrays, as JSON types.
        build: computes the arrays.
        directory: the folder of the cache.
    """
    content = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = directory / f"{name}-{content[:20]}.cache"
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log.warning("The cache file %s cannot be used (%s) and is built anew.", path, error)
    arrays = build()
    try:
        _write(path, arrays)
    except OSError as error:
        log.warning("The encoded data cannot be cached (%s); the next run will encode it again.", error)
    return arrays


# A cache file is a SHA-256 digest, followed by the npz archive that it was computed from.


def _read(path: Path) -> Arrays:
    raw = path.read_bytes()
    digest, body = raw[:_DIGEST], memoryview(raw)[_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("its checksum is wrong: truncated or damaged")
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        return dict(arrays)


def _write(path: Path, arrays: Arrays) -> None:
    body = io.BytesIO()
    np.savez(body, **arrays)  # type: ignore[arg-type]  # numpy types the names as bool (allow_pickle)
    make_private(path.parent)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(hashlib.sha256(body.getbuffer()).digest())
            file.write(body.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
