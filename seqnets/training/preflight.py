"""Checks a run before Hydra creates its folder, and reports errors as one message without a traceback."""

import copy
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from seqnets.analysis.jobs import read_jobs
from seqnets.errors import ConfigError, RunFolderError, SeqnetsError
from seqnets.training.config import build, check_config, resolved
from seqnets.training.run_folder import refuse_used, remove_empty
from seqnets.training.sweep import report_sweep
from seqnets.training.sweep_folder import locked, refuse_other_sweep


def full_errors() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the process with the message of a SeqnetsError; with ``HYDRA_FULL_ERROR=1``, let the error pass."""
    try:
        yield
    except SeqnetsError as error:
        if full_errors():
            raise
        sys.exit(f"{type(error).__name__}: {error}")


class Preflight(Callback):
    """Hooks into Hydra so that a run that cannot start leaves no folder, and a failing job does not end its sweep.

    Hydra turns exceptions of its hooks into warnings, but SystemExit passes. With ``HYDRA_FULL_ERROR=1``, the checks of
    a single run are left to `train`, which repeats them, so that their traceback is shown.
    """

    def __init__(self) -> None:
        self._failed: list[str] = []
        self._jobs: list[tuple[Sequence[str], Path, bool]] = []

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        if full_errors():
            return
        cfg = copy.deepcopy(config)
        with plain_errors(), open_dict(cfg):
            _refuse_run_dir(cfg)
            if not OmegaConf.is_missing(cfg, "name"):
                cfg.run_dir = cfg.hydra.run.dir
            del cfg["hydra"]
            refuse_used(Path(check_config(cfg)["run_dir"]))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            _refuse_run_dir(config)
            if any(override.startswith("hydra.run.dir=") for override in config.hydra.overrides.hydra):
                raise ConfigError(
                    "this is a sweep, whose folder is given by hydra.sweep.dir=<folder>; "
                    "for one run of it add hydra.mode=RUN"
                )
            refuse_other_sweep(config)
            self._lock = locked(Path(config.hydra.sweep.dir))
        except SeqnetsError as error:  # `train` does not repeat these checks
            if full_errors():
                traceback.print_exc()
            sys.exit(f"{type(error).__name__}: {error}")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        ran = job_return.status is not JobStatus.FAILED or (
            not isinstance(job_return._return_value, RunFolderError)  # the folder belongs to another run
        )
        self._jobs.append((job_return.overrides or (), Path(config.hydra.runtime.output_dir), ran))
        if job_return.status is not JobStatus.FAILED:
            return
        remove_empty(Path(config.hydra.runtime.output_dir))
        error = job_return._return_value  # the property `return_value` would raise it
        if not isinstance(error, SeqnetsError) or full_errors():
            return  # Hydra then shows the traceback; in a sweep, once the other jobs are done
        message = f"{type(error).__name__}: {error}"
        if config.hydra.mode is not RunMode.MULTIRUN:
            sys.exit(message)
        self._failed.append(f"  {' '.join(job_return.overrides or ())}\n    {message}")
        print(message, file=sys.stderr)
        job_return.return_value, job_return.status = None, JobStatus.COMPLETED  # the sweep goes on

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        troubles = [f"{len(self._failed)} of the sweep's jobs failed:", *self._failed] if self._failed else []
        try:
            if self._jobs:
                folder, jobs = Path(config.hydra.sweep.dir).absolute(), read_jobs(self._jobs)
                report_sweep(folder, jobs)
                if picture := config.get("sweep_picture"):
                    build(resolved(picture), "sweep_picture")(folder, jobs)
        except Exception as error:  # Hydra would turn it into a warning
            traceback.print_exc()
            troubles.append(f"the sweep could not be reported: {type(error).__name__}: {error}")
        if troubles:
            sys.exit("\n".join(troubles))


def _refuse_run_dir(config: DictConfig) -> None:
    if any(override.lstrip("+").startswith("run_dir=") for override in config.hydra.overrides.task):
        raise ConfigError(
            "run_dir is where Hydra makes the folder: give hydra.run.dir=<folder> (for a sweep hydra.sweep)"
        )
