"""Runs one training, from a composed configuration to metrics, checkpoints and a plot in a folder of its own."""

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch import nn

from seqnets.backends import autoselect
from seqnets.tasks import Task
from seqnets.training.allocator import keep_freed_memory
from seqnets.training.backend_report import BackendReport
from seqnets.training.checkpoint_io import read_checkpoint
from seqnets.training.checkpoints import BestCheckpoint, LastCheckpoint, SelfContained, best_checkpoint
from seqnets.training.checks import build_schedule, check_monitors, refuse_model, refuse_optimizer, refuse_overfitting
from seqnets.training.config import build, check_config
from seqnets.training.curves import plot_curves
from seqnets.training.divergence import DivergenceGuard
from seqnets.training.ending import Ending
from seqnets.training.environment import device_name, environment
from seqnets.training.messages import Messages
from seqnets.training.progress import EpochReport
from seqnets.training.random_states import RandomStates
from seqnets.training.resuming import refuse_other, refuse_other_schedule
from seqnets.training.run_folder import claim, refuse_used, write_json
from seqnets.training.summary import print_table, sentence, shown
from seqnets.training.trainer import build_trainer

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> tuple[dict[str, float], dict[str, Any]]:
    """Train and test as `cfg` says (see conf/train.yaml).

    Returns:
        The last epoch's metrics by name (``train/…``, ``val/…``, ``test/…``), and the objects of the run: ``config``
        (plain), ``data``, ``task``, ``trainer``, ``callbacks``, ``folder`` and ``result`` (the content of result.json).

    Raises:
        SeqnetsError: The fitting subclass. Whatever can be known beforehand is raised before the run folder is taken.
    """
    config = check_config(cfg)
    folder = Path(config["run_dir"]).absolute()
    refuse_used(folder)
    with Messages() as messages, Ending() as ending:
        objects = {"folder": folder, "config": config, **_prepare(config, folder, ending)}
        claim(folder, config)
        messages.write_to(folder / "train.log")
        objects["result"] = _run(**objects)
        _summarise(**objects)
    return objects["result"]["metrics"], objects


def _prepare(config: dict[str, Any], folder: Path, ending: Ending) -> dict[str, Any]:
    """Build everything, and raise whatever is wrong, before anything is written."""
    resumed = read_checkpoint(Path(config["ckpt_path"])) if config["ckpt_path"] else None
    if resumed is not None:
        autoselect.adopt(resumed["seqnets"].get("verdicts", []))
    data: Any = build(config["data"], "data", LightningDataModule)
    callbacks = {name: build(node, f"callbacks.{name}", Callback) for name, node in config["callbacks"].items()}
    with torch.device("meta"):  # a model that cannot be built is refused before the data are looked for
        build(config["model"]["net"], "model.net", nn.Module)
    data.prepare_data()
    data.setup("fit")  # Lightning calls it again, when everything is loaded
    seed_everything(config["seed"], workers=True, verbose=False)  # after the data: a cache must not change the weights
    model = build(config["model"]["net"], "model.net", nn.Module)
    optimizer = build(config["optimizer"], "optimizer")
    scheduler = build(config["scheduler"], "scheduler") if config["scheduler"] else None
    task = build(config["task"], "task", Task, model=model, optimizer=optimizer, scheduler=scheduler)
    check_monitors(config, callbacks, data, task)
    if resumed is not None:
        refuse_other(resumed, config, task, data, callbacks)
    callbacks |= {
        "backend_report": BackendReport(),
        "divergence_guard": DivergenceGuard(),
        "ending": ending,
        "random_states": RandomStates(),
        "self_contained": SelfContained(config, data),
    }
    loggers = [build(node, f"logger.{name}", Logger) for name, node in config["logger"].items()]
    trainer = build_trainer(config["trainer"], list(callbacks.values()), loggers, folder)
    for make in (data.train_dataloader, data.val_dataloader, data.test_dataloader):
        make()  # raises if the data are too few for their settings
    refuse_overfitting(data, trainer)
    refuse_optimizer(optimizer, callbacks, trainer)
    schedule = build_schedule(task, data, trainer)
    if resumed is not None:
        refuse_other_schedule(resumed, config["ckpt_path"], schedule)
    refuse_model(task, data, trainer)
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
    """Fit and test, and write result.json, which tells how the run ended, however it ended (short of a kill)."""
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
        step = next((c.saved_step for c in callbacks.values() if isinstance(c, LastCheckpoint)), None)
        of = "" if step is None else f", of step {step},"
        way_on = f"go on from the last checkpoint{of} with ckpt_path={shown(last)}"
        way_on = way_on if last.exists() else "nothing was saved"
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
    """Load the weights that were best on the validation data, and return their metrics on these data.

    Without a best checkpoint, keep the last weights, log a warning, and return no metrics.
    """
    best = best_checkpoint(callbacks)
    if best is None or best.best is None:
        log.warning(
            "no checkpoint was best on validation data, whose figure was never a number: testing the last weights"
        )
        return {}
    task.load_state_dict(read_checkpoint(best.best)["state_dict"])
    result["tested"] = str(best.best)
    loggers, trainer.loggers = trainer.loggers, []  # training has logged these metrics at their own step
    trainer.validate(task, datamodule=data, verbose=False)
    trainer.loggers = loggers
    return _figures(trainer)


def _figures(trainer: Trainer) -> dict[str, float]:
    """Return Lightning's current metrics. If one is kept by step and by epoch, the bare name has the epoch's value."""
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
