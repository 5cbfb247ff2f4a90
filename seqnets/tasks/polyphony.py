"""Predicts which notes sound next (many to many, aligned)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from seqnets.data.batch import Batch
from seqnets.data.midi import KEYS, write_midi
from seqnets.errors import ConfigError
from seqnets.layers import Recurrent
from seqnets.optional import needed
from seqnets.recurrence import active_steps
from seqnets.tasks.metrics import Mean
from seqnets.tasks.sampling import COOLEST, check_sampling
from seqnets.tasks.task import Prediction, Task

LENGTH = 64  # the default number of steps of a composition


class Polyphony(Task):
    """Models piano rolls whose notes are independent given the past, for a model that returns logits ``(B, T, 88)``.

    The loss is the negative log-likelihood of a step in nats, the mean over the T steps of all sequences of

        -log p(x_t | x_1 … x_{t-1}) = Σ_k softplus(o_tk) - x_tk · o_tk,   p(x_tk = 1 | …) = σ(o_tk)

    The accuracy is that of Bay, Ehmann and Downie (ISMIR 2009) for notes with p > ½: true positives over the sum of
    true positives, false positives and false negatives. Metrics are over all steps, however these are batched. Steps
    beyond ``Batch.lengths`` do not matter.

    The loss is that of Boulanger-Lewandowski et al. (ICML 2012). The arguments are those of `Task`.
    """

    options = {  # noqa: RUF012  of the base class
        "length": "steps of the composition",
        "temperature": "divides the logits",
        "seed": "of the notes drawn",
    }

    def metrics(self) -> dict[str, Metric]:
        return {"loss": Mean(), "accuracy": Mean()}

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.model(inputs, lengths)

    def loss(self, batch: Batch, part: str) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        logits, notes = self(batch.inputs, batch.lengths).float(), batch.targets
        if logits.shape != notes.shape:
            raise ValueError(
                f"the model gives {tuple(logits.shape)} for notes {tuple(notes.shape)}; "
                f"set model.net.out_features={KEYS}"
            )
        if batch.lengths is not None:  # left out rather than multiplied by 0: padding might give NaN
            active = active_steps(batch.lengths, notes.shape[1], notes.device).squeeze(-1).T
            logits, notes = logits[active], notes[active]
        logits, notes = logits.flatten(0, -2), notes.flatten(0, -2)
        return F.binary_cross_entropy_with_logits(logits, notes, reduction="sum") / len(notes), (logits.detach(), notes)

    def update(self, metrics: Any, loss: Tensor, found: tuple[Tensor, Tensor], batch: Batch) -> None:
        metrics["loss"].update(loss.detach(), weight=len(found[1]))
        hits, of = _hits(*found)
        metrics["accuracy"].update(hits / of.clamp(min=1), weight=of)

    def of_step(self, loss: Tensor, found: tuple[Tensor, Tensor], batch: Batch) -> dict[str, Tensor]:
        hits, of = _hits(*found)
        return {"loss": loss, "accuracy": hits / of.clamp(min=1)}

    @torch.no_grad()
    def compose(
        self, length: int = LENGTH, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Sample a piano roll ``(length, 88)`` of 0 and 1 (uint8), step by step from nothing, and without dropout.

        At temperature 0 the notes with p > ½ sound.
        """
        training = self.model.training
        model: Any = self.model.eval()
        notes, state, steps = torch.zeros(1, KEYS), None, []
        weight = next(model.parameters())
        for _ in range(length):
            logits, state = model.step(notes.to(weight), state)
            notes = torch.bernoulli((logits.float().cpu() / max(temperature, COOLEST)).sigmoid(), generator=generator)
            steps.append(notes)
        model.train(training)
        return torch.cat(steps).to(torch.uint8)

    def check(self, data: Any) -> None:
        if any(isinstance(module, Recurrent) and module.bidirectional for module in self.model.modules()):
            raise ConfigError(
                "a bidirectional model reads the notes that it has to predict: "
                "set model.net.recurrent.bidirectional=false"
            )
        super().check(data)

    def read(self, encoder: Any, given: str) -> dict[str, list[str]]:
        """Compose a piece and read it, whatever is given, and return the numbers of its steps."""
        roll = self.compose(generator=torch.Generator().manual_seed(0))
        self.model(roll.float().unsqueeze(0).to(self.device))
        return {"": [str(t) for t in range(1, len(roll) + 1)]}

    def predict(self, encoder: Any, labels: Sequence[str], given: Sequence[str], **options: Any) -> list[Prediction]:
        """Write a MIDI file for each name given. With several names, each gets another piece of the same seed.

        Raises:
            ValueError: If a name does not end in .mid or .midi, is taken, has no folder, or is given twice, in which
                case nothing is composed; or if a file cannot be written.
        """
        length, temperature = options.get("length", LENGTH), options.get("temperature", 1.0)
        seed = options.get("seed", 0)
        check_sampling(length, temperature, seed)
        needed("mido", "writing a MIDI file")
        for name in given:
            if (file := Path(name)).suffix.lower() not in (".mid", ".midi"):
                raise ValueError(f"{name} does not end in .mid: give the name of the MIDI file to write")
            if file.exists():
                raise ValueError(f"{name} exists and is not overwritten: give another name, or move it away")
            if not file.parent.is_dir():
                raise ValueError(f"{name} cannot be written: there is no folder {file.parent}")
        if len(set(given)) < len(given):
            raise ValueError("a name is given twice: give each file a name of its own")
        generator = torch.Generator().manual_seed(seed)
        predictions = []
        for name in given:
            roll = self.compose(length, temperature, generator)
            try:
                notes = len(write_midi(roll, Path(name)))
            except OSError as error:
                raise ValueError(f"{name} cannot be written: {error.strerror}") from error
            fields = {"file": name, "steps": length, "notes": notes, "temperature": temperature, "seed": seed}
            line = f"wrote {name}: {length} quarters, {notes} notes, temperature {temperature:g}, seed {seed}"
            predictions.append(Prediction(line, fields))
        return predictions


def _hits(logits: Tensor, notes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the number of true positives, and that of true positives, false positives and false negatives together."""
    predicted, notes = logits > 0, notes > 0
    return (predicted & notes).sum(), (predicted | notes).sum()
