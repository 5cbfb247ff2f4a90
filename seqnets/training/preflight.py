"""What happens before Hydra makes its folders, and how errors reach the user: one message, no traceback."""

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from seqnets.errors import SeqnetsError
from seqnets.training.config import check_config
from seqnets.training.run_folder import refuse_used


def full_errors() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the process with the message of a SeqnetsError; with ``HYDRA_FULL_ERROR=1``, let it through as it is."""
    try:
        yield
    except SeqnetsError as error:
        if full_errors():
            raise
        sys.exit(f"{type(error).__name__}: {error}")


class Preflight(Callback):
    """Hydra's hook: a run that cannot start leaves no folder behind, and a sweep writes its file into no run's folder.

    Hydra turns exceptions of its hooks into warnings, SystemExit passes. With ``HYDRA_FULL_ERROR=1`` the checks are left
    to `train`, which repeats them, for their traceback.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        if full_errors():
            return
        cfg = copy.deepcopy(config)
        with plain_errors(), open_dict(cfg):
            if not OmegaConf.is_missing(cfg, "name") and OmegaConf.is_interpolation(cfg, "run_dir"):
                cfg.run_dir = cfg.hydra.run.dir
            del cfg["hydra"]
            refuse_used(Path(check_config(cfg)["run_dir"]))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with plain_errors():
            refuse_used(Path(config.hydra.sweep.dir))
