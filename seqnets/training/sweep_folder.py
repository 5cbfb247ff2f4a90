"""The folder of a sweep: of one sweep, which goes on where it stopped when its command is repeated."""

import copy
import itertools
import json
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from seqnets.errors import RunFolderError
from seqnets.training.run_folder import refuse_used


def refuse_other_sweep(config: DictConfig) -> None:
    """Nothing, if the sweep's folder holds none, or the same one, to go on with.

    Raises:
        RunFolderError: it holds a run or another sweep.
    """
    folder = Path(config.hydra.sweep.dir)
    if not (file := folder / "multirun.yaml").exists():
        refuse_used(folder)
        return
    before, now = OmegaConf.load(file).hydra, config.hydra
    if before.overrides.task != now.overrides.task or before.sweeper.params != now.sweeper.params:
        raise RunFolderError(
            f"{folder} holds another sweep, {' '.join(before.overrides.task)}; name a folder of its own with hydra.sweep.dir=, or repeat "
            "that command to go on with that sweep"
        )


def continued(cfg: DictConfig) -> DictConfig | None:
    """What a job of a sweep has left to do, where the same sweep was begun before: nothing, if it finished; the rest, from its last
    checkpoint, if it did not, its folder then moved aside; else all.
    """
    if (
        HydraConfig.get().mode is not RunMode.MULTIRUN
        or not (folder := Path(cfg.run_dir)).joinpath("config.yaml").exists()
    ):
        return cfg
    result = folder / "result.json"
    if result.exists() and json.loads(result.read_text(encoding="utf-8"))["status"] == "finished":
        print(f"finished before: {folder}")
        return None
    aside = next(p for k in itertools.count(1) if not (p := folder.with_name(f"{folder.name}.stopped-{k}")).exists())
    folder.rename(aside)
    folder.mkdir()
    last = aside / "checkpoints" / "last.ckpt"
    if last.exists():
        cfg = copy.deepcopy(cfg)
        cfg.ckpt_path = str(last.absolute())
    return cfg
