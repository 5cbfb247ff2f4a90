"""The test figures of a checkpoint, with the data it names or the same data lying elsewhere."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from omegaconf import DictConfig

from seqnets.errors import DataError
from seqnets.training.config import TRAINER, build, refuse_unknown, resolved
from seqnets.training.messages import Messages
from seqnets.training.progress import ProgressBar
from seqnets.training.summary import print_table, sentence
from seqnets.training.trained import DATA, Trained, load_trained, refuse_untrusted
from seqnets.training.trainer import build_trainer


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Test the model in ``cfg.ckpt_path`` (see conf/evaluate.yaml), print the table and return its figures.

    Raises:
        SeqnetsError: the checkpoint or the data cannot be used, or the data give another vocabulary.
    """
    config = resolved(cfg)
    refuse_unknown(config, {"ckpt_path", "trust_cells", "data", "trainer"}, "")
    refuse_unknown(config["trainer"], TRAINER, "trainer.")
    path = Path(config["ckpt_path"])
    trained = load_trained(path, config["trust_cells"])
    changed = {key: value for key, value in config["data"].items() if value is not None}
    refuse_unknown(changed, trained.config["data"], "data.")
    settings = trained.config["data"] | changed
    if "path" in changed or "source" in changed:  # one given now replaces both given then
        settings |= {"path": changed.get("path"), "source": changed.get("source", "auto")}
    refuse_untrusted(settings, path, DATA)
    with Messages():
        return _test(trained, settings, config["trainer"])


def _test(trained: Trained, settings: dict[str, Any], trainer_node: dict[str, Any]) -> dict[str, float]:
    data: Any = build(settings, "data", LightningDataModule)
    data.prepare_data()
    data.setup("test")
    if data.encoder.to_dict() != trained.encoder.to_dict():
        raise DataError(
            f"{sentence(data.provenance())} gives another vocabulary than {trained.path} was trained with "
            f"({sentence(trained.data)}), so its figures would mean nothing; name the same data with data.path="
        )
    trainer = build_trainer(trainer_node | {"enable_checkpointing": False, "logger": False}, [ProgressBar()], [], None)
    trainer.test(trained.task, datamodule=data, verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    print_table(str(trained.path), {**dict(sorted(metrics.items())), "data": sentence(data.provenance())})
    return metrics
