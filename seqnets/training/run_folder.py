"""Manages the folder of a run, which is claimed before anything is written into it and holds one run only."""

import json
import math
import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from seqnets.errors import RunFolderError

# config.yaml is written first, with exclusive creation: the process that creates it owns the folder
OURS = (
    "config.yaml", "environment.json", "train.log", "metrics.csv", "tensorboard", "checkpoints", "result.json",
    "learning_curves.png", "samples.txt", "gradient_flow.csv", "gradient_flow.png", "sample.mid", "piano_roll.png",
    "forecast.png", "translations.txt", "attention.png",
)  # fmt: skip


def refuse_used(folder: Path) -> None:
    """Raise if `folder` already holds a run. Files that do not belong to a run do not matter.

    Raises:
        RunFolderError: If it holds a run, finished or not, or is a file. The message names the way out.
    """
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"the run folder {folder} is a file; choose another with hydra.run.dir=<folder>")
    found = [name for name in OURS if (folder / name).exists()]
    if not found:
        return
    last = folder / "checkpoints" / "last.ckpt"
    state = "a finished run" if "result.json" in found else "a run that did not finish"
    resume = f", or go on from it in a new folder with ckpt_path={last}" if last.exists() else ""
    raise RunFolderError(
        f"{folder} already holds {state} ({', '.join(found)}); nothing in it was touched. "
        f"Leave hydra.run.dir out for a fresh folder or name another, move the old one away{resume}"
    )


def finished(folder: Path) -> bool:
    """Return whether the run in `folder` finished, its test included."""
    file = folder / "result.json"
    return file.exists() and json.loads(file.read_text(encoding="utf-8")).get("status") == "finished"


def claim(folder: Path, config: dict[str, Any]) -> None:
    """Take `folder` for this run, and write the resolved configuration there.

    Raises:
        RunFolderError: If it holds a run, another process took it at this moment, or it cannot be written to.
    """
    refuse_used(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "config.yaml").open("x", encoding="utf-8") as file:
            file.write(OmegaConf.to_yaml(OmegaConf.create(config)))
    except FileExistsError as error:
        raise RunFolderError(
            f"another process has just taken {folder}; start again for a folder of your own"
        ) from error
    except OSError as error:
        raise RunFolderError(f"the run folder {folder} cannot be written to: {error.strerror}") from error


def remove_empty(folder: Path) -> None:
    """Remove `folder` and the folders around it, up to the working directory, as far as they are empty."""
    for one in (folder, *folder.parents):
        if one == Path.cwd() or not one.is_dir() or any(one.iterdir()):
            return
        one.rmdir()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` to `path`, whole or not at all.

    Floats that are not finite become null, because JSON has no NaN and no infinity.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(_strict(content), indent=2, default=str, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
