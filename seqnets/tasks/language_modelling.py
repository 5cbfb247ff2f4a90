"""Predicts the next token of a long text.

Training is by truncated backpropagation through time, with a state that is carried over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from seqnets.data.batch import Batch
from seqnets.errors import ConfigError
from seqnets.models.language_model import Modelled, State
from seqnets.tasks.metrics import Bits, Mean, Perplexity
from seqnets.tasks.sampling import COOLEST, check_sampling
from seqnets.tasks.task import MakesOptimizer, MakesScheduler, Prediction, Task

FIGURES: dict[str, type[Mean]] = {"perplexity": Perplexity, "bits_per_character": Bits}


class LanguageModelling(Task):
    """Trains with the cross-entropy of the next token, in nats, as a mean over tokens.

    Each batch starts from the state after the batch before, detached from its gradient (Williams and Peng 1990). The
    state starts from zeros in each epoch. It is saved in checkpoints, so that a run can resume in mid-epoch.

    Args:
        model: such as `LanguageModel`.
        figure: the metric beside the loss, "perplexity" or "bits_per_character".
        activation_penalty: the factor of the mean square of the last layer's outputs after dropout, which is added to
            what is minimized.
        slowness_penalty: the factor of the mean square of the change of these outputs from step to step, before
            dropout.
        steps: T that the learning rate is meant for. Where T varies, gradients are scaled by T / steps after clipping,
            which for SGD equals scaling the rate (weight decay is not scaled). None: no scaling.
        optimizer, scheduler, on_nonfinite: as `Task` takes them.

    Raises:
        ConfigError: If there is no such metric, or a number is out of range.

    Source of penalties and scaling: Merity, Keskar and Socher, ICLR 2018 (arXiv:1708.02182).
    """

    options: ClassVar = {
        "length": "tokens to go on with",
        "temperature": "divides the logits that are drawn from",
        "seed": "of the draws",
    }

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakesOptimizer,
        scheduler: MakesScheduler | None = None,
        figure: str = "perplexity",
        activation_penalty: float = 0.0,
        slowness_penalty: float = 0.0,
        steps: int | None = None,
        on_nonfinite: str = "stop",
    ) -> None:
        super().__init__(model, optimizer, scheduler, on_nonfinite)
        if figure not in FIGURES:
            raise ConfigError(f"There is no figure {figure!r}: choose among {', '.join(FIGURES)}.")
        if steps is not None and steps < 1:
            raise ConfigError(f"task.steps is {steps}, but must be 1 at least, or null.")
        for name, penalty in (("activation_penalty", activation_penalty), ("slowness_penalty", slowness_penalty)):
            if not 0 <= penalty < math.inf:
                raise ConfigError(f"task.{name} is {penalty}, but must not be negative: it is added to the loss.")
        self.figure, self.steps = figure, steps
        self.activation_penalty, self.slowness_penalty = activation_penalty, slowness_penalty
        self._carried: dict[str, tuple[int, State]] = {}  # part -> epoch of the state, and the state

    def metrics(self) -> dict[str, Metric]:
        return {"loss": Mean(), self.figure: FIGURES[self.figure]()}

    def loss(self, batch: Batch, part: str) -> tuple[Tensor, Tensor]:
        epoch = self.current_epoch
        at, state = self._carried.get(part, (epoch, None))
        found: Modelled = self.model(batch.inputs, state if at == epoch else None)
        self._carried[part] = epoch, tuple(tuple(s.detach() for s in layer) for layer in found.state)
        plain = F.cross_entropy(found.logits.flatten(0, 1).float(), batch.targets.flatten())
        minimized = plain
        if part == "fit" and self.activation_penalty:
            minimized = minimized + self.activation_penalty * found.dropped.pow(2).mean()
        if part == "fit" and self.slowness_penalty and len(found.outputs) > 1:
            minimized = minimized + self.slowness_penalty * found.outputs.diff(dim=0).pow(2).mean()
        self._chunk = batch.inputs.shape[1]
        return minimized, plain.detach()

    def update(self, metrics: Any, loss: Tensor, found: Tensor, batch: Batch) -> None:
        for metric in metrics.values():
            metric.update(found, weight=batch.targets.numel())

    def of_step(self, loss: Tensor, found: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"loss": found}

    def on_validation_epoch_start(self) -> None:
        self._carried.pop("val", None)

    def on_test_epoch_start(self) -> None:
        self._carried.pop("test", None)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if self.steps is not None:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self._chunk / self.steps)

    def _progress(self) -> dict[str, Any]:
        return super()._progress() | ({"carried": self._carried["fit"]} if "fit" in self._carried else {})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if "carried" in checkpoint:
            epoch, state = checkpoint["carried"]
            self._carried["fit"] = epoch, tuple(tuple(s.to(self.device) for s in layer) for layer in state)

    def check(self, data: Any) -> None:
        logits = self.model(self.example(data).inputs).logits
        if logits.shape[-1] != len(data.encoder):
            raise ConfigError(
                f"model.net gives logits of {logits.shape[-1]} tokens, but the training text has {len(data.encoder)}: "
                f"set data.vocab_size={len(data.encoder)}"
            )

    def generate(self, tokens: Tensor, length: int, temperature: float, generator: torch.Generator) -> Tensor:
        """Return ``(length,)`` tokens that continue ``tokens (T,)``.

        Each is sampled from the softmax of logits / temperature. At temperature 0 it is the likeliest.
        """
        drawn, state, given = [], None, tokens.unsqueeze(0)
        for _ in range(length):
            logits, state, *_ = self.model(given, state)
            chances = (logits[0, -1].cpu().double() / max(temperature, COOLEST)).softmax(-1)
            given = torch.multinomial(chances, 1, generator=generator).to(tokens.device).unsqueeze(0)
            drawn.append(given[0])
        return torch.cat(drawn) if drawn else tokens[:0]

    def go_on(self, encoder: Any, text: str, length: int, temperature: float, generator: torch.Generator) -> str:
        """Return the text followed by `length` tokens that `generate` samples.

        Raises:
            ValueError: If the text cannot be encoded.
        """
        prompt = encoder.encode([text])[0].to(self.device)
        return encoder.decode([*prompt.tolist(), *self.generate(prompt, length, temperature, generator).tolist()])

    def predict(self, encoder: Any, labels: Sequence[str], given: Sequence[str], **options: Any) -> list[Prediction]:
        length, temperature, seed = options.get("length", 200), options.get("temperature", 1.0), options.get("seed", 0)
        check_sampling(length, temperature, seed)
        generator = torch.Generator().manual_seed(seed)
        predictions = []
        for text in given:
            whole = self.go_on(encoder, text, length, temperature, generator)
            predictions.append(Prediction(whole, {"text": text, "continued": whole}))
        return predictions
