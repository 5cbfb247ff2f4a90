"""What `imdb_bilstm` is measured against: the same training as a plain PyTorch loop, and taking turns with it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

BATCH = 32


class Net(nn.Module):
    """Embedding, two bidirectional layers of `torch.nn.LSTM`, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20_000, 128)
        self.lstm = nn.LSTM(128, 64, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(128, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        _, (h, _) = self.lstm(self.embedding(tokens))
        return self.head(torch.cat([h[-2], h[-1]], dim=-1)).squeeze(-1)


class BareLoop:
    """Training steps over shuffled batches: fused Adam, binary cross-entropy, no metrics, no logging."""

    def __init__(self, arrays: Path) -> None:
        with np.load(arrays) as loaded:
            self.tokens = torch.from_numpy(loaded["tokens"])
            self.labels = torch.from_numpy(loaded["labels"]).float()
        self.net = Net()
        self.optimizer = torch.optim.Adam(self.net.parameters(), eps=1e-7, fused=True)
        self.batches = torch.randperm(len(self.tokens)).split(BATCH)
        self.position = 0

    def seconds(self, steps: int) -> float:
        """The time of so many steps, from where the last ones ended."""
        start = time.perf_counter()
        for _ in range(steps):
            rows = self.batches[self.position % len(self.batches)]
            self.position += 1
            self.optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(self.net(self.tokens[rows]), self.labels[rows]).backward()
            self.optimizer.step()
        return time.perf_counter() - start


class TakeTurns(Callback):
    """Lets the bare loop run so many steps after every so many of the Trainer's, and times both.

    A drift of the machine then meets both alike, and what a process happens to have in memory is the same.
    """

    def __init__(self, arrays: str, steps: int = 20) -> None:
        self.arrays, self.steps = Path(arrays), steps
        self.ours: list[float] = []
        self.bare: list[float] = []
        self._since: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.loop = BareLoop(self.arrays)
        self.loop.seconds(1)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step % self.steps:
            return
        if self._since is not None:  # the first turn holds the warm-up
            self.ours.append(time.perf_counter() - self._since)
            self.bare.append(self.loop.seconds(self.steps))
        self._since = time.perf_counter()
