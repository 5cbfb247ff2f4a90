"""Translates from one language to another (many to many, not aligned)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from seqnets.data.batch import Batch
from seqnets.data.sentences import END, PAD, START
from seqnets.errors import ConfigError
from seqnets.optional import needed
from seqnets.tasks.beam_search import beam_search
from seqnets.tasks.metrics import Mean, Perplexity
from seqnets.tasks.task import MakesOptimizer, MakesScheduler, Prediction, Task

log = logging.getLogger(__name__)

WIDEST = 1000  # maximum beam; a search with it already takes minutes per sentence


class Translated(NamedTuple):
    """Holds a sentence of the test split, the translation by a human (the reference), and that by the model."""

    source: str
    reference: str
    translation: str


class Translation(Task):
    """Trains with the cross-entropy per word of the target, its end included, and measures perplexity and BLEU.

    BLEU is computed on the whole test split by sacrebleu with its defaults, from 0 to 100: cased, on detokenized text
    (Post, "A Call for Clarity in Reporting BLEU Scores", WMT 2018). The log has its signature.

    Args:
        model: a `seqnets.models.Translator`, or a similar model.
        optimizer, scheduler, on_nonfinite: as `Task` takes them.
        label_smoothing: the probability spread over all words in what is minimized. Metrics are computed without it.
        beam, length_penalty: as `beam_search` takes them.

    Attributes:
        translations: those of the last test, in the order of its sentences.
        signature: how the BLEU score of the last test was computed.
    """

    options: ClassVar = {"beam": "translations kept at each step of the search; 1 is greedy"}
    model: Any

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakesOptimizer,
        scheduler: MakesScheduler | None = None,
        label_smoothing: float = 0.0,
        beam: int = 5,
        length_penalty: float = 1.0,
        on_nonfinite: str = "stop",
    ) -> None:
        super().__init__(model, optimizer, scheduler, on_nonfinite)
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"task.label_smoothing is {label_smoothing}, but must be at least 0 and below 1.")
        if not isinstance(length_penalty, int | float) or not math.isfinite(length_penalty):
            raise ConfigError(f"task.length_penalty is {length_penalty!r}, but must be a number, such as 0 or 1.")
        try:
            _check_beam(beam)
        except ValueError as error:
            raise ConfigError(f"task.{error}") from None
        self.label_smoothing, self.beam, self.length_penalty = label_smoothing, beam, length_penalty
        self.translations: list[Translated] = []
        self.signature = ""

    def metrics(self) -> dict[str, Metric]:
        return {"loss": Mean(), "perplexity": Perplexity()}

    @property
    def logged(self) -> list[str]:
        return [*super().logged, "test/bleu"]

    def loss(self, batch: Batch, part: str) -> tuple[Tensor, tuple[Tensor, int]]:
        o = self.model(batch.inputs, late(batch.targets), batch.lengths)
        real = batch.targets != PAD
        words = batch.targets[real]
        log_p = self.model.logits(o[real]).float().log_softmax(-1)
        entropy = F.nll_loss(log_p, words)
        found = entropy.detach(), len(words)
        if part != "fit" or not self.label_smoothing:
            return entropy, found
        return (1 - self.label_smoothing) * entropy - self.label_smoothing * log_p.mean(), found

    def update(self, metrics: Any, loss: Tensor, found: tuple[Tensor, int], batch: Batch) -> None:
        entropy, words = found
        for metric in metrics.values():
            metric.update(entropy, weight=words)

    def of_step(self, loss: Tensor, found: tuple[Tensor, int], batch: Batch) -> dict[str, Tensor]:
        return {"loss": found[0]}

    def translate(
        self, inputs: Tensor, lengths: Tensor | None = None, beam: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the best translations of ids ``(B, S)`` by `beam_search`: ids ``(B, T)`` and scores ``(B,)``."""
        memory, state = self.model.encode(inputs, lengths)

        def step(words: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            logits, state = self.model.step(words, state, memory)
            logits[:, [PAD, START]] = -torch.inf  # these are no words
            return logits.float().log_softmax(-1), state

        longest = 2 * inputs.shape[1] + 10
        return beam_search(step, state, START, END, self.beam if beam is None else beam, longest, self.length_penalty)

    def read(self, encoder: Any, given: str) -> dict[str, list[str]]:
        """Translate `given`, read the translation with the decoder, and return what encoder and decoder read."""
        inputs = encoder.encode([given]).to(self.device)
        ids, _ = self.translate(inputs)
        self.model(inputs, late(ids))
        return {
            "encoder": encoder.pieces(inputs[0], "source"),
            "decoder": ["<start>", *encoder.pieces(ids[0])][: ids.shape[1]],
        }

    def predict(self, encoder: Any, labels: Sequence[str], given: Sequence[str], **options: Any) -> list[Prediction]:
        beam = options.get("beam", self.beam)
        _check_beam(beam)
        predictions: list[Prediction] = []
        for inputs in encoder.encode(list(given)).to(self.device).split(64):
            ids, scores = self.translate(inputs, (inputs != PAD).sum(1), beam)
            for translation, score in zip(encoder.decode(ids), scores.tolist(), strict=True):
                fields = {"translation": translation, "score": round(score, 6), "text": given[len(predictions)]}
                predictions.append(Prediction(translation, fields))
        return predictions

    def check(self, data: Any) -> None:
        needed("sacrebleu", "BLEU")
        if data.encoder.vocab_size > (
            fewest := min(self.model.source.num_embeddings, self.model.target.num_embeddings)
        ):
            raise ConfigError(
                f"the data have {data.encoder.vocab_size} subwords, but an embedding of model.net only {fewest}: "
                f"leave num_embeddings at data.vocab_size"
            )
        super().check(data)

    def on_test_start(self) -> None:
        needed("sacrebleu", "BLEU")
        self.translations = []
        log.info("translating the test split with a beam of %d", self.beam)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        encoder = self.trainer.datamodule.encoder  # type: ignore[attr-defined]
        ids, _ = self.translate(batch.inputs, batch.lengths)
        columns = encoder.decode(batch.inputs, "source"), encoder.decode(batch.targets), encoder.decode(ids)
        self.translations += map(Translated, *columns)

    def on_test_epoch_end(self) -> None:
        from sacrebleu import BLEU

        bleu = BLEU()
        references, translations = [t.reference for t in self.translations], [t.translation for t in self.translations]
        score = bleu.corpus_score(translations, [references])
        self.signature = str(bleu.get_signature())
        log.info("BLEU %.2f (%s)", score.score, self.signature)
        self.log("test/bleu", score.score)


def late(targets: Tensor) -> Tensor:
    """Shift ids ``(B, T)`` by one step, with the start id in front: what the decoder reads."""
    return torch.cat([torch.full_like(targets[:, :1], START), targets[:, :-1]], dim=1)


def _check_beam(beam: Any) -> None:
    if not isinstance(beam, int) or isinstance(beam, bool) or not 1 <= beam <= WIDEST:
        raise ValueError(
            f"beam is {beam!r}, but must be an integer from 1 to {WIDEST}: how many translations are kept at each step"
        )
