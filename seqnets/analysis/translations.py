"""Writes the translations of the test split, to read."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer


class Translations(Callback):
    """Writes ``translations.txt`` after the test: source, reference and translation of each sentence.

    BLEU and its signature are at the top.
    """

    def __init__(self, folder: str) -> None:
        self.file = Path(folder) / "translations.txt"

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        bleu = float(trainer.callback_metrics["test/bleu"])
        parts = [f"BLEU {bleu:.2f}  {pl_module.signature}\n"]
        for translated in pl_module.translations:
            parts.append("".join(f"{name:13}{text}\n" for name, text in translated._asdict().items()))
        self.file.write_text("\n".join(parts), encoding="utf-8")
