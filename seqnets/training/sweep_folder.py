"""Manages the folder of a sweep, which holds one sweep and continues it when its command is repeated."""

import copy
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from seqnets.errors import RunFolderError
from seqnets.training.config import differences
from seqnets.training.run_folder import finished, refuse_used


def refuse_other_sweep(config: DictConfig) -> None:
    """Raise unless the sweep's folder is free, or holds the same sweep to continue.

    Raises:
        RunFolderError: If it holds a run or another sweep.
    """
    folder = Path(config.hydra.sweep.dir)
    if not (file := folder / "multirun.yaml").exists():
        refuse_used(folder)
        return
    before, now = OmegaConf.load(file), config
    tasks, params = before.hydra.overrides.task, before.hydra.sweeper.params
    if tasks != now.hydra.overrides.task or params != now.hydra.sweeper.params:
        raise RunFolderError(
            f"{folder} holds another sweep, {' '.join(tasks)}; name a folder of its own with hydra.sweep.dir=, "
            "or repeat that command to go on with that sweep"
        )
    changed = differences(OmegaConf.to_container(before), OmegaConf.to_container(now), "it", {"hydra"})
    if changed:
        raise RunFolderError(
            f"{folder} holds this sweep as it was configured before ({'; '.join(changed)}): "
            "name a folder of its own with hydra.sweep.dir="
        )


def locked(folder: Path) -> FileLock:
    """Create the sweep's folder and lock it for this process, as long as the lock that is returned is held.

    Raises:
        RunFolderError: If another process has locked it, or it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(
            f"another process is at work in {folder}: let it finish or stop it, or name another with hydra.sweep.dir="
        ) from error
    except (OSError, NotImplementedError) as error:
        raise RunFolderError(f"{folder} cannot be taken for a sweep: {error}") from error
    return lock


@contextmanager
def told_how_to_go_on() -> Iterator[None]:
    """Print how to continue a sweep if it is interrupted in this context."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        hydra = HydraConfig.get()
        if hydra.mode is RunMode.MULTIRUN:
            print(
                f"the sweep goes on when its command is repeated with hydra.sweep.dir={hydra.sweep.dir}",
                file=sys.stderr,
            )
        raise


def continued(cfg: DictConfig) -> DictConfig | None:
    """Return the configuration of what a job has left to do, if the same sweep was begun before.

    Returns:
        None if the job has finished. If it was stopped, its folder is moved aside, and the configuration resumes from
        its last checkpoint, if it has one. Otherwise `cfg`.
    """
    if HydraConfig.get().mode is not RunMode.MULTIRUN:
        return cfg
    folder = Path(cfg.run_dir)
    if finished(folder):
        print(f"finished before: {folder}")
        return None
    named = re.compile(re.escape(folder.name) + r"\.stopped-(\d+)")
    stopped = {int(name[1]): aside for aside in folder.parent.iterdir() if (name := named.fullmatch(aside.name))}
    if (folder / "config.yaml").exists():
        number = max(stopped, default=0) + 1
        stopped[number] = folder.rename(folder.with_name(f"{folder.name}.stopped-{number}"))
        folder.mkdir()
    checkpoints = (stopped[number] / "checkpoints" / "last.ckpt" for number in sorted(stopped, reverse=True))
    if last := next(filter(Path.exists, checkpoints), None):  # the newest may have stopped before its first one
        cfg = copy.deepcopy(cfg)
        cfg.ckpt_path = str(last.absolute())
    return cfg
