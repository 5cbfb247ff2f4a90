"""One training run, from a composed configuration to figures, checkpoints and a picture in a folder of its own."""

import json
import logging
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.precision import MixedPrecision
from omegaconf import DictConfig
from torch import nn

from seqnets.data import encoder_from_dict
from seqnets.errors import CheckpointError, ConfigError, DataError, SeqnetsError
from seqnets.tasks import Task
from seqnets.training.averaging import NTASGD, AveragedWeights
from seqnets.training.backend_report import BackendReport
from seqnets.training.checkpoint_io import read_checkpoint
from seqnets.training.checkpoints import BestCheckpoint, SelfContained
from seqnets.training.config import build, check_config, differences
from seqnets.training.curves import plot_curves
from seqnets.training.environment import device_name, environment
from seqnets.training.memory import keep_freed_memory
from seqnets.training.messages import Messages
from seqnets.training.progress import EpochReport
from seqnets.training.random_states import RandomStates
from seqnets.training.run_folder import claim, refuse_used, write_json
from seqnets.training.summary import print_table, sentence, shown
from seqnets.training.trainer import build_trainer

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> tuple[dict[str, float], dict[str, Any]]:
    """Train and test as `cfg` says (see conf/train.yaml).

    Returns:
        The last epoch's figures by name (``train/…``, ``val/…``, ``test/…``), and the objects of the run: ``config``
        (plain), ``data``, ``task``, ``trainer``, ``callbacks``, ``folder`` and ``result`` (what result.json holds).

    Raises:
        SeqnetsError: of the kind that fits; whatever can be known beforehand is raised before the run folder is taken.
    """
    config = check_config(cfg)
    folder = Path(config["run_dir"]).absolute()
    refuse_used(folder)
    with Messages() as messages:
        objects = {"folder": folder, "config": config, **_prepare(config, folder)}
        claim(folder, config)
        messages.write_to(folder / "train.log")
        objects["result"] = _run(**objects)
        _summarise(**objects)
    return objects["result"]["metrics"], objects


def _prepare(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Build everything, and raise whatever is wrong, before anything is written."""
    resumed = read_checkpoint(Path(config["ckpt_path"])) if config["ckpt_path"] else None
    data: Any = build(config["data"], "data", LightningDataModule)
    callbacks = {name: build(node, f"callbacks.{name}", Callback) for name, node in config["callbacks"].items()}
    with torch.device("meta"):  # a model that cannot be built is refused before the data are looked for
        build(config["model"]["net"], "model.net", nn.Module)
    data.prepare_data()
    data.setup("fit")  # Lightning will ask again, when all is there
    seed_everything(config["seed"], workers=True, verbose=False)  # after the data: a cache must not move the weights
    model = build(config["model"]["net"], "model.net", nn.Module)
    optimizer = build(config["optimizer"], "optimizer")
    scheduler = build(config["scheduler"], "scheduler") if config["scheduler"] else None
    task = build(config["task"], "task", Task, model=model, optimizer=optimizer, scheduler=scheduler)
    _check_monitors(config, callbacks, data, task)
    if resumed is not None:
        _refuse_other(resumed, config, task, data, callbacks)
    callbacks |= {
        "backend_report": BackendReport(),
        "random_states": RandomStates(),
        "self_contained": SelfContained(config, data),
    }
    loggers = [build(node, f"logger.{name}", Logger) for name, node in config["logger"].items()]
    trainer = build_trainer(config["trainer"], list(callbacks.values()), loggers, folder)
    for make in (data.train_dataloader, data.val_dataloader, data.test_dataloader):
        make()  # data that are too few for their settings are refused here
    _refuse_optimizer(optimizer, callbacks, trainer)
    _refuse_schedule(task, data, trainer, resumed, config)
    _refuse_model(task, data, trainer)
    for callback in callbacks.values():
        if hasattr(callback, "prepare"):
            callback.prepare(task, data)
    return {"data": data, "task": task, "callbacks": callbacks, "trainer": trainer}


def _run(
    folder: Path,
    config: dict[str, Any],
    data: Any,
    task: Task,
    callbacks: dict[str, Callback],
    trainer: Trainer,
) -> dict[str, Any]:
    """Fit and test; result.json says how it ended, however it ended (short of a kill)."""
    device = trainer.strategy.root_device
    write_json(folder / "environment.json", environment(device, config["seed"]))
    result: dict[str, Any] = {
        "status": "failed",
        "name": config["name"],
        "seed": config["seed"],
        "resumed_from": config["ckpt_path"],
        "parameters": sum(p.numel() for p in task.parameters() if p.requires_grad),
        "device": device_name(device),
        "data": data.provenance(),
    }
    log.info("%s, %s parameters on %s", config["name"], f"{result['parameters']:,}", result["device"])
    log.info("run folder: %s", shown(folder))
    keep_freed_memory(device)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=config["ckpt_path"])
        metrics = _figures(trainer)
        if config["test_on"] == "best":
            metrics |= _take_best(task, data, callbacks, trainer, result)
        trainer.test(task, datamodule=data, verbose=False)
        metrics |= _figures(trainer)
    except BaseException as error:
        result["status"] = "interrupted" if isinstance(error, SystemExit | KeyboardInterrupt) else "failed"
        result["error"] = f"{type(error).__name__}: {error}"
        last = folder / "checkpoints" / "last.ckpt"
        way_on = (
            f"go on from the last checkpoint with ckpt_path={shown(last)}" if last.exists() else "nothing was saved"
        )
        log.info("%s at step %d; %s", result["status"], trainer.global_step, way_on)
        raise
    else:
        result |= {
            "status": "finished",
            "metrics": metrics,
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "seconds_per_epoch": [s for c in callbacks.values() if isinstance(c, EpochReport) for s in c.seconds],
            "backend": str(callbacks["backend_report"]),
        }
    finally:
        write_json(folder / "result.json", result)
    if (folder / "metrics.csv").exists():
        plot_curves(folder / "metrics.csv", folder / "learning_curves.png", config["name"])
    return result


def _take_best(
    task: Task, data: Any, callbacks: dict[str, Callback], trainer: Trainer, result: dict[str, Any]
) -> dict[str, float]:
    """Load the weights that were best on validation data; their figures on these."""
    best = _best(callbacks)
    if best is None or best.best is None:
        log.warning(
            "no checkpoint was best on validation data, whose figure was never a number: testing the last weights"
        )
        return {}
    task.load_state_dict(read_checkpoint(best.best)["state_dict"])
    result["tested"] = str(best.best)
    loggers, trainer.loggers = trainer.loggers, []  # the course of training has these figures where they belong
    trainer.validate(task, datamodule=data, verbose=False)
    trainer.loggers = loggers
    return _figures(trainer)


def _best(callbacks: dict[str, Callback]) -> BestCheckpoint | None:
    return next((c for c in callbacks.values() if isinstance(c, BestCheckpoint)), None)


def _check_monitors(config: dict[str, Any], callbacks: dict[str, Callback], data: Any, task: Task) -> None:
    """Raise where a callback watches validation data that are not there; warn where the task does not log its metric."""
    loaders = data.val_dataloader()
    validates = config["trainer"]["limit_val_batches"] != 0 and not (isinstance(loaders, list) and not loaders)
    writes = _best(callbacks) is not None and config["trainer"]["enable_checkpointing"] is not False
    if config["test_on"] == "best" and not (validates and writes):
        raise ConfigError(
            "test_on=best tests the checkpoint that was best on validation data, but there are no such data or "
            "no callbacks.best_checkpoint: test_on=last tests the weights that training ended with"
        )
    logged = getattr(task, "logged", ())  # another task need not say
    for name, callback in callbacks.items():
        monitor = getattr(callback, "monitor", None)
        if not monitor or (isinstance(callback, BestCheckpoint) and not validates):
            continue
        if monitor.startswith("val/") and not validates:
            raise ConfigError(
                f"callbacks.{name} watches {monitor}, but there are no validation data: hold out a part of the training "
                "data with data.validation_fraction=0.1, or watch a train/… metric"
            )
        if logged and monitor not in logged:  # another callback may log it, so no error
            close = get_close_matches(monitor, logged, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            log.warning("callbacks.%s watches %s, which the task does not log%s", name, monitor, hint)


def _refuse_model(task: Any, data: Any, trainer: Trainer) -> None:
    """Raise, by trying it on one example, where the model cannot take the data or its backend cannot serve it."""
    device = trainer.strategy.root_device
    trainer.precision_plugin.convert_module(task).to(device).eval()  # in place; in eval mode nothing is drawn
    try:
        with trainer.precision_plugin.forward_context():
            task.check(data)
    except SeqnetsError:
        raise
    except Exception as error:  # whatever the modules raise
        raise ConfigError(f"model.net cannot take the data: {type(error).__name__}: {error}") from error
    task.train()


def _refuse_optimizer(
    optimizer: Callable[[list[nn.Parameter]], Any], callbacks: dict[str, Callback], trainer: Trainer
) -> None:
    try:
        probe = optimizer([nn.Parameter(torch.zeros(1))])  # it checks its options when it sees parameters
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"optimizer cannot be built: {error}") from error
    averages = any(isinstance(c, AveragedWeights) for c in callbacks.values())
    if averages != isinstance(probe, NTASGD):
        raise ConfigError(
            "optimizer=ntasgd and callbacks=averaged_weights go together: one without the other averages nothing"
        )
    fused = getattr(probe, "_step_supports_amp_scaling", False)
    if fused and trainer.gradient_clip_val and isinstance(trainer.precision_plugin, MixedPrecision):
        raise ConfigError(
            f"Lightning does not clip gradients in {trainer.precision} for a fused optimizer, which unscales them itself: "
            "add optimizer.fused=false, or leave out trainer.gradient_clip_val or the mixed precision"
        )


def _refuse_schedule(
    task: Task, data: Any, trainer: Trainer, resumed: dict[str, Any] | None, config: dict[str, Any]
) -> None:
    """Raise where the schedule cannot be built, or is over another number of steps than that of the run to go on with."""
    probe = task.optimizer([nn.Parameter(torch.zeros(1))])
    try:
        schedule = task.schedule(probe, trainer, data)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        if isinstance(error, SeqnetsError):
            raise
        raise ConfigError(f"scheduler cannot be built: {error}") from error
    steps = getattr(schedule, "total_steps", None)
    for state in resumed["lr_schedulers"] if resumed is not None else []:
        if state.get("total_steps") != steps:
            raise ConfigError(
                f"{config['ckpt_path']} goes on with a learning rate that was planned over {state.get('total_steps')} steps, and this "
                f"run has {steps}: resume with the trainer's limits and data settings of then, or start anew"
            )


def _refuse_other(
    resumed: dict[str, Any], config: dict[str, Any], task: Task, data: Any, callbacks: dict[str, Callback]
) -> None:
    """Raise where the checkpoint does not fit this run; warn where the run will go on, but not as it would have."""
    path, then = config["ckpt_path"], resumed["seqnets"]
    if "iterates" in resumed and not any(isinstance(c, AveragedWeights) for c in callbacks.values()):
        raise CheckpointError(
            f"{path} holds averaged weights: resume with callbacks=averaged_weights, as it was trained"
        )
    if (best := _best(callbacks)) is not None:
        best.beside = Path(path).absolute().parent
        state = resumed["callbacks"].get(best.state_key)
        if config["test_on"] == "best" and state and state["best"] and best.locate(state) is None:
            raise CheckpointError(
                f"the checkpoint that was best so far is gone: it was {state['best']}; put it beside {path}, as best.ckpt, or test the "
                "last weights with test_on=last"
            )
    saved = {name: tuple(value.shape) for name, value in resumed["state_dict"].items()}
    here = {name: tuple(value.shape) for name, value in task.state_dict().items()}
    if saved != here:
        name = next(n for n in [*here, *saved] if saved.get(n) != here.get(n))
        raise CheckpointError(
            f"{path} is of another model: {name} is {saved.get(name, 'missing')} there and {here.get(name, 'missing')} "
            "here; resume with the configuration it was trained with (config.yaml beside its checkpoints folder)"
        )
    # neither where the weights came from nor what computes with them makes another model
    free = {"backend", "init"}
    if changed := differences(then["config"]["model"]["net"], config["model"]["net"], "model.net", free):
        raise CheckpointError(
            f"{path} is of another model: {'; '.join(changed)}; resume with the configuration it was trained with"
        )
    if encoder_from_dict(then["encoder"]).to_dict() != data.encoder.to_dict():
        raise DataError(
            f"the data are encoded otherwise (another vocabulary, say) than those that {path} was trained with ({sentence(then['data'])}); "
            "resume with the same data and data settings"
        )
    done = {
        "max_epochs": resumed["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"],
        "max_steps": resumed["global_step"],
    }
    ended = _ended(Path(path).absolute().parents[1])
    for limit, behind in done.items():
        most = config["trainer"][limit] or -1
        if 0 <= most < behind or (most == behind and ended):  # one that was stopped before its test is only tested
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
    # where the data lie and how they are loaded does not matter: their fingerprint says what they are
    free = {"path", "source", "cache_dir", "num_workers", "eval_batch_size"}
    parts = ("seed", "task", "data")
    changed = [d for key in parts for d in differences(then["config"][key], config[key], key, free)]
    if then["data"]["fingerprint"] != data.provenance()["fingerprint"]:
        changed.append(f"the data are not those of {sentence(then['data'])}")
    if changed:
        log.warning("resuming, but not as the first run would have gone on: %s", "; ".join(changed))


def _ended(folder: Path) -> bool:
    """Whether the run in `folder` came to its end, test included."""
    file = folder / "result.json"
    return file.exists() and json.loads(file.read_text(encoding="utf-8")).get("status") == "finished"


def _figures(trainer: Trainer) -> dict[str, float]:
    """The metrics Lightning has now; where it keeps one by step and by epoch, the bare name has the epoch's."""
    return {n: float(v) for n, v in trainer.callback_metrics.items() if not n.endswith(("_step", "_epoch"))}


def _summarise(folder: Path, result: dict[str, Any], data: Any, callbacks: dict[str, Callback], **_: Any) -> None:
    figures = sorted(result["metrics"].items())
    rows: dict[str, Any] = {name: value for name, value in figures if name.startswith(("test/", "val/"))}
    log.info("finished: %s", ", ".join(f"{name} {value:.4f}" for name, value in rows.items()))
    rows["parameters"] = f"{result['parameters']:,}"
    if seconds := result["seconds_per_epoch"]:
        rows["seconds per epoch"] = f"{sum(seconds) / len(seconds):.1f}"
    rows |= {"device": result["device"], "backend": result["backend"], "data": sentence(result["data"])}
    if licence := result["data"].get("licence"):
        rows["their licence"] = licence
    if (guess := result["data"].get("guess")) is not None:
        rows["loss of guessing"] = guess
    last = folder / "checkpoints" / "last.ckpt"
    lines = [f"all of it: {shown(folder)}"]
    for c in callbacks.values():
        if isinstance(c, BestCheckpoint) and c.best and c.best.exists():
            score = f"{c.monitor} {c.score:.4f}"
            lines.append(f"best on validation ({score}): python evaluate.py ckpt_path={shown(c.best)}")
    tested = Path(result.get("tested", last))
    if tested.exists() and data.encoder.usage:
        lines.append(f"try it: python predict.py {shown(tested)} {data.encoder.usage}")
    print_table(f"{result['name']}: {result['epochs']} epochs, {result['steps']:,} steps", rows, *lines)
