"""Writes checkpoint files so that a good one always exists, and reads them without trusting them.

A file is written beside its target, flushed to the disk, and renamed over the target. After a kill or on a full disk,
the previous checkpoint is still there, whole, under its own name.
"""

import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from lightning.pytorch.plugins.io import CheckpointIO
from omegaconf import Container, OmegaConf
from torch import Tensor

from seqnets.errors import CheckpointError

FULL = 1 << 20  # bytes: a disk with less free space counts as full

# the keys that this project reads from a checkpoint, and their types; Lightning reads others
_NODE = {"_target_": str}
FORM = {
    "state_dict": {},
    "global_step": int,
    "optimizer_states": list,
    "random_states": {},
    "loops": {"fit_loop": {"epoch_progress": {"current": {"processed": int}}}},
    "seqnets": {
        "config": {"seed": int, "model": {"net": _NODE}, "task": _NODE, "optimizer": _NODE, "data": _NODE},
        "encoder": {},
        "labels": list,
        "data": {"source": str, "location": str, "rows": {}, "fingerprint": str},
    },
}


class AtomicCheckpointIO(CheckpointIO):
    """Reads and writes Lightning's checkpoints as plain containers and tensors."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write `checkpoint` to `path` atomically: at every moment, `path` holds its old content or all of the new one.

    Raises:
        CheckpointError: If a value cannot be converted by `plain`, or the file cannot be written.
    """
    content = plain(checkpoint, "")
    unfinished = path.with_name(f".{path.name}.unfinished")  # a fixed name: the next write replaces what a kill leaves
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        if os.name == "posix":  # the rename itself must reach the disk too
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except (OSError, RuntimeError) as error:  # torch's zip writer raises RuntimeError on a full disk
        free = _free(path.parent)
        unfinished.unlink(missing_ok=True)
        kept = f"the previous one is intact: go on from it with ckpt_path={path}" if path.exists() else "none is kept"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        if free is not None and free < FULL:
            reason = f"the disk of {path.parent.absolute()} is full: {free >> 20} MiB are free"
        raise CheckpointError(f"the checkpoint {path} could not be written ({reason}); {kept}") from error


def _free(folder: Path) -> int | None:
    """Return the number of free bytes on the disk that holds a folder; None if it is unknown."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the checkpoint in `path` to the CPU. Only containers and tensors are unpickled.

    Raises:
        CheckpointError: If there is no such file, it is damaged, or it was not written by this project's training.
    """
    if path.is_dir() or not path.exists():
        folder = path if path.is_dir() else path.parent
        near = sorted(folder.glob("*.ckpt")) or sorted(folder.glob("checkpoints/*.ckpt"))
        hint = f"; did you mean {' or '.join(map(str, near))}?" if near else ""
        what = f"{path} is a folder, not a checkpoint" if path.is_dir() else f"there is no checkpoint {path}"
        raise CheckpointError(what + hint)
    try:
        with zipfile.ZipFile(path) as file:  # torch's format; torch writes checksums, but does not verify them
            if damaged := file.testzip():
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than containers and tensors, which is not loaded: it could run any code"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.error) as error:
        raise CheckpointError(
            f"{path} cannot be read: it is truncated, damaged, or no checkpoint ({str(error).splitlines()[0]}). "
            "Take another one of the run (last.ckpt, best.ckpt), or train again"
        ) from error
    if missing := list(_missing(checkpoint, FORM)):
        raise CheckpointError(f"{path} was not written by train.py: it has no {', '.join(missing)}")
    return checkpoint


def _missing(found: Any, form: Any, name: str = "") -> Iterator[str]:
    if not isinstance(found, dict if isinstance(form, dict) else form):
        yield name or "keys"
    elif isinstance(form, dict):
        for key, part in form.items():
            yield from _missing(found.get(key), part, f"{name}.{key}".lstrip("."))


def plain(value: Any, key: str) -> Any:
    """Convert `value` to dicts, lists, tuples, tensors and scalars, as ``torch.load(weights_only=True)`` accepts them.

    Args:
        value: the value to convert.
        key: its dotted path in the checkpoint, for the error message.

    Raises:
        CheckpointError: If something in `value` is of another type.
    """
    if value is None or isinstance(value, Tensor | torch.dtype | torch.device):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bool | int | float | complex | bytes):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # reduces a subclass, such as torch's version, to its text
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Container):
        return OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {plain(k, key): plain(v, f"{key}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list | tuple):
        items = [plain(v, f"{key}.{i}".lstrip(".")) for i, v in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise CheckpointError(
        f"a {type(value).__module__}.{type(value).__qualname__} under {key!r} cannot go into a checkpoint, "
        "which holds containers, tensors and numbers only; keep it out of state_dict(), "
        "save_hyperparameters() and on_save_checkpoint()"
    )
