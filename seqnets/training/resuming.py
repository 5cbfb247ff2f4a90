"""Checks whether a checkpoint fits the run that resumes from it."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from seqnets.data import encoder_from_dict
from seqnets.errors import CheckpointError, ConfigError, DataError
from seqnets.tasks import Task
from seqnets.training.averaging import AveragedWeights
from seqnets.training.checkpoints import best_checkpoint
from seqnets.training.config import differences
from seqnets.training.divergence import name_nonfinite
from seqnets.training.run_folder import finished
from seqnets.training.summary import sentence

log = logging.getLogger(__name__)


def refuse_other(
    resumed: dict[str, Any], config: dict[str, Any], task: Task, data: Any, callbacks: dict[str, Callback]
) -> None:
    """Raise if the checkpoint does not fit this run; warn if the run will not continue as the first one would have.

    Raises:
        CheckpointError: If it has another model, averaged weights that this run does not expect, or weights that are
            not finite, or if the best checkpoint is needed and gone.
        ConfigError: If the run is finished within the trainer's limits, or the settings of the optimizer or schedule
            have changed.
        DataError: If the data are encoded in another way.
    """
    path, then = config["ckpt_path"], resumed["seqnets"]
    if "iterates" in resumed and not any(isinstance(c, AveragedWeights) for c in callbacks.values()):
        raise CheckpointError(
            f"{path} holds averaged weights: resume with callbacks=averaged_weights, as it was trained"
        )
    if (best := best_checkpoint(callbacks)) is not None:
        best.beside = Path(path).absolute().parent
        state = resumed["callbacks"].get(best.state_key)
        if config["test_on"] == "best" and state and state["best"] and best.locate(state) is None:
            raise CheckpointError(
                f"the checkpoint that was best so far is gone: it was {state['best']}; put it beside {path}, "
                "as best.ckpt, or test the last weights with test_on=last"
            )
    saved = {name: tuple(value.shape) for name, value in resumed["state_dict"].items()}
    here = {name: tuple(value.shape) for name, value in task.state_dict().items()}
    if saved != here:
        name = next(n for n in [*here, *saved] if saved.get(n) != here.get(n))
        raise CheckpointError(
            f"{path} is of another model: {name} is {saved.get(name, 'missing')} there and {here.get(name, 'missing')} "
            "here; resume with the configuration it was trained with (config.yaml beside its checkpoints folder)"
        )
    refuse_nonfinite(path, task, resumed["state_dict"])
    # the same model may differ in how its weights were initialized and in the backend that serves it
    free = {"backend", "init"}
    if changed := differences(then["config"]["model"]["net"], config["model"]["net"], "model.net", free):
        raise CheckpointError(
            f"{path} is of another model: {'; '.join(changed)}; resume with the configuration it was trained with"
        )
    if encoder_from_dict(then["encoder"]).to_dict() != data.encoder.to_dict():
        raise DataError(
            f"the data are encoded otherwise (another vocabulary, say) than those that {path} was trained with "
            f"({sentence(then['data'])}); resume with the same data and data settings"
        )
    done = {
        "max_epochs": resumed["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"],
        "max_steps": resumed["global_step"],
    }
    ended = finished(Path(path).absolute().parents[1])
    for limit, behind in done.items():
        most = config["trainer"][limit] or -1
        if 0 <= most < behind or (most == behind and ended):  # a run stopped before its test may resume for it
            raise ConfigError(
                f"{path} has all of trainer.{limit}={config['trainer'][limit]} behind it; raise trainer.{limit} to "
                f"train on, or test it with python evaluate.py ckpt_path={path}"
            )
    if changed := [
        difference
        for part in ("optimizer", "scheduler")
        for difference in differences(then["config"].get(part), config[part], part, set())
    ]:
        raise ConfigError(
            f"{path} goes on with the optimizer it holds, settings included, so these would do nothing: "
            f"{'; '.join(changed)}. Resume without them"
        )
    # where the data are and how they are loaded does not matter: the fingerprint identifies them
    free = {"path", "source", "cache_dir", "num_workers", "eval_batch_size", "on_nonfinite"}
    parts = ("seed", "task", "data")
    changed = [d for key in parts for d in differences(then["config"][key], config[key], key, free)]
    if then["data"]["fingerprint"] != data.provenance()["fingerprint"]:
        changed.append(f"the data are not those of {sentence(then['data'])}")
    if changed:
        log.warning("resuming, but not as the first run would have gone on: %s", "; ".join(changed))


def refuse_nonfinite(path: str | Path, task: Task, weights: dict[str, Any]) -> None:
    """Raise CheckpointError if weights of a checkpoint are NaN or infinite."""
    if (name := name_nonfinite(task, weights)) is not None:
        raise CheckpointError(
            f"{path} holds weights that are not finite ({name}): its training had diverged; take an earlier checkpoint "
            "of the run, such as best.ckpt, or train again with a lower optimizer.lr or trainer.gradient_clip_val=1.0"
        )


def refuse_other_schedule(resumed: dict[str, Any], path: str, schedule: Any) -> None:
    """Raise ConfigError if the learning rate was scheduled over another number of steps than this run has."""
    steps = getattr(schedule, "total_steps", None)
    for state in resumed["lr_schedulers"]:
        if state.get("total_steps") != steps:
            raise ConfigError(
                f"{path} goes on with a learning rate that was planned over {state.get('total_steps')} steps, "
                f"and this run has {steps}: resume with the trainer's limits and data settings of then, or start anew"
            )
