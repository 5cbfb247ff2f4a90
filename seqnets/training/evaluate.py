"""Computes the test metrics of a checkpoint, on its own data or on others, with its own vocabulary."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from omegaconf import DictConfig

from seqnets.training.config import TRAINER, build, refuse_unknown, resolved
from seqnets.training.ending import Ending
from seqnets.training.messages import Messages
from seqnets.training.progress import ProgressBar
from seqnets.training.summary import print_table, sentence
from seqnets.training.trained import DATA, Trained, load_trained, refuse_untrusted
from seqnets.training.trainer import build_trainer


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Test the model in ``cfg.ckpt_path`` (see conf/evaluate.yaml), print a table and return the metrics by name.

    Raises:
        SeqnetsError: If the checkpoint or the data cannot be used.
    """
    config = resolved(cfg)
    refuse_unknown(config, {"ckpt_path", "trust_cells", "data", "trainer"}, "")
    refuse_unknown(config["trainer"], TRAINER, "trainer.")
    path = Path(config["ckpt_path"])
    trained = load_trained(path, config["trust_cells"])
    changed = {key: value for key, value in config["data"].items() if value is not None}
    refuse_unknown(changed, trained.config["data"], "data.")
    settings = trained.config["data"] | changed
    if "cache_dir" in settings:  # a checkpoint must not decide where to write
        settings["cache_dir"] = changed.get("cache_dir")
    if "path" in changed or "source" in changed:  # giving either one replaces both stored ones
        new = {"path": changed.get("path"), "source": changed.get("source", "auto")}
        settings |= {key: value for key, value in new.items() if key in settings}
    refuse_untrusted(settings, path, DATA)
    with Ending(), Messages():
        return _test(trained, settings, config["trainer"])


def _test(trained: Trained, settings: dict[str, Any], trainer_node: dict[str, Any]) -> dict[str, float]:
    data: Any = build(settings, "data", LightningDataModule, encoder=trained.encoder)
    data.prepare_data()
    data.setup("test")
    trainer = build_trainer(trainer_node | {"enable_checkpointing": False, "logger": False}, [ProgressBar()], [], None)
    trainer.test(trained.task, datamodule=data, verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    rows = {**dict(sorted(metrics.items())), "data": sentence(data.provenance())}
    if data.provenance()["fingerprint"] != trained.data["fingerprint"]:
        rows["trained on"] = sentence(trained.data)
    print_table(str(trained.path), rows)
    return metrics
