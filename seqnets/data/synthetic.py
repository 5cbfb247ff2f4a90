"""Provides synthetic problems that only a network with a memory of T steps can solve."""

import hashlib
import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from seqnets.data.encoders import NoEncoder
from seqnets.data.in_memory import InMemory, Loaded, check_integers
from seqnets.data.loader import Examples


class Made(InMemory):
    """Provides synthetic sequences, drawn once and the same for every seed of a run. A subclass draws them.

    Args:
        length: T of the problem.
        train_size, validation_size, test_size: the number of sequences of each split.
        batch_size, eval_batch_size, num_workers, seed: as `InMemory` takes them.
        encoder: not used; there is nothing to type.

    Attributes:
        guess: the loss of a model that remembers nothing.

    Raises:
        ConfigError: If an argument is invalid.
    """

    least: int
    guess: float

    def __init__(
        self,
        length: int = 100,
        train_size: int = 10_000,
        validation_size: int = 1_000,
        test_size: int = 1_000,
        batch_size: int = 50,
        eval_batch_size: int = 250,
        num_workers: int = 0,
        seed: int = 0,
        encoder: Any = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, 0.0, num_workers, seed)
        check_integers(
            length=(length, self.least), train_size=(train_size, 1), validation_size=(validation_size, 1),
            test_size=(test_size, 1),
        )  # fmt: skip
        self.length = length
        self.sizes = {"train": train_size, "validation": validation_size, "test": test_size}
        self.encoder = NoEncoder()

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw `count` sequences, and return their inputs and targets."""

    def _load(self) -> Loaded:
        splits, digest = {}, hashlib.sha256()
        for number, (name, count) in enumerate(self.sizes.items()):
            inputs, targets = self.sample(count, torch.Generator().manual_seed(number))
            digest.update(inputs.numpy().tobytes() + targets.numpy().tobytes())
            splits[name] = Examples(inputs, targets)
        origin = {
            "source": "made",
            "location": f"T = {self.length}",
            "rows": self.sizes,
            "unit": "sequences",
            "note": "",
        }
        return Loaded(splits, origin | {"fingerprint": digest.hexdigest(), "guess": self.guess})


class AddingProblem(Made):
    """Provides the adding problem: two numbers of a sequence are marked, one in each half, and the target is their sum.

    The inputs ``(B, T, 2)`` are numbers uniform in [0, 1] and marks, which are two ones among zeros. The targets are
    ``(B, 1)``. Always predicting 1 has the mean squared error 1/6, the variance of the sum (often given as 0.1767).

    Source: Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 1997, in the form of Le, Jaitly and
    Hinton 2015 (arXiv:1504.00941).
    """

    least = 2
    guess = 1 / 6

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        numbers = torch.rand(count, self.length, generator=generator)
        half = self.length // 2
        first = torch.randint(0, half, (count, 1), generator=generator)
        second = torch.randint(half, self.length, (count, 1), generator=generator)
        marks = torch.zeros(count, self.length).scatter_(1, torch.cat([first, second], 1), 1.0)
        return torch.stack([numbers, marks], -1), (numbers * marks).sum(1, keepdim=True)


class CopyMemory(Made):
    """Provides the copy memory problem: ten symbols, T blanks, and the ten symbols again, in order, from memory.

    The inputs are ``(B, T + 20)`` ids: ten symbols from 1 to 8, T - 1 blanks (0), the sign to recall (9), and ten
    blanks. The targets have the same length: T + 10 blanks, then the ten symbols. A model that remembers nothing, but
    knows when to recall, has the cross-entropy 10 · log(8) / (T + 20) per step.

    Source: Hochreiter and Schmidhuber 1997, in the form of Arjovsky, Shah and Bengio, "Unitary evolution recurrent
    neural networks", ICML 2016 (arXiv:1511.06464).
    """

    least = 1
    symbols, recalled = 8, 10

    @property
    def guess(self) -> float:  # type: ignore[override]
        return self.recalled * math.log(self.symbols) / (self.length + 2 * self.recalled)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        symbols = torch.randint(1, self.symbols + 1, (count, self.recalled), generator=generator)
        inputs = torch.zeros(count, self.length + 2 * self.recalled, dtype=torch.uint8)
        targets = inputs.clone()
        inputs[:, : self.recalled] = symbols
        inputs[:, self.length + self.recalled - 1] = self.symbols + 1
        targets[:, -self.recalled :] = symbols
        return inputs.int(), targets.int()
