"""A trainer that says and writes nothing."""

from lightning import Trainer


def quiet(folder, **options):
    return Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, accelerator="cpu", **options,
    )  # fmt: skip
