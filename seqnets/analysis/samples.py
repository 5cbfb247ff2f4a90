"""Writes what a language model generates as it learns."""

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from seqnets.errors import ConfigError
from seqnets.tasks.sampling import check_sampling

log = logging.getLogger(__name__)


class Samples(Callback):
    """Appends the model's continuation of `prompt` to ``samples.txt`` after each epoch.

    Args:
        folder: the folder of the run.
        prompt: the text to continue.
        length: the number of tokens to sample.
        temperature: divides the logits before sampling.
        seed: the seed of the sampling, which leaves the run's own random state alone.
    """

    def __init__(self, folder: str, prompt: str, length: int = 300, temperature: float = 0.8, seed: int = 0) -> None:
        self.file = Path(folder) / "samples.txt"
        self.prompt, self.length, self.temperature, self.seed = prompt, length, temperature, seed

    def prepare(self, task: Any, data: Any) -> None:
        """Check the prompt and the options before the run.

        Raises:
            ConfigError: If the prompt cannot be encoded, or a number is out of range.
        """
        try:
            check_sampling(self.length, self.temperature, self.seed)
            data.encoder.encode([self.prompt])
        except ValueError as error:
            raise ConfigError(f"callbacks.samples: {error}") from error

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        module: Any = pl_module
        encoder = trainer.datamodule.encoder  # type: ignore[attr-defined]
        generator = torch.Generator().manual_seed(self.seed)
        module.eval()
        with torch.inference_mode():
            text = module.go_on(encoder, self.prompt, self.length, self.temperature, generator)
        module.train()
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"=== epoch {trainer.current_epoch + 1}, temperature {self.temperature:g}\n{text}\n\n")
        log.info("a sample: %s …", " ".join(text[:160].split()))
