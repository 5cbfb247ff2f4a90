"""Trains an experiment, a few steps at a time: as `train.py` does, and as a plain loop around `torch.nn` does."""

from __future__ import annotations

import io
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F

import seqnets
from benchmarks.cases import TrainCase
from benchmarks.contenders import Arrays, Settings, Work
from benchmarks.contenders.torch_layers import LAYERS, options_of
from seqnets.training.allocator import keep_freed_memory
from seqnets.training.config import build, check_config

CONF = Path(__file__).parents[2] / "conf"


def compose_experiment(case: TrainCase, *overrides: str) -> Any:
    """Compose the configuration of a case's experiment.

    Raises:
        ConfigError, hydra.errors.HydraException: There is no such experiment, or it takes no such override.
    """
    started = GlobalHydra.instance().is_initialized()  # by `python -m benchmarks`, with the same folder
    with nullcontext() if started else initialize_config_dir(str(CONF), version_base=None):
        return compose("train", [f"+experiment={case.experiment}", *case.overrides, *overrides])


def load_examples(case: TrainCase) -> Arrays:
    """Load the training split for contenders that do not read an experiment's data themselves.

    Returns:
        ``inputs`` and ``targets``, with one row per example, and ``batch_size``.

    Raises:
        ConfigError, DataError, hydra.errors.HydraException: The data cannot be loaded; the message says why.
    """
    data: Any = build(check_config(compose_experiment(case, "run_dir=."))["data"], "data")
    data.prepare_data()
    data.setup("fit")
    batches = list(data.train_dataloader())
    return {
        "inputs": torch.cat([batch.inputs for batch in batches]).numpy(),
        "targets": torch.cat([batch.targets for batch in batches]).numpy(),
        "batch_size": np.array(data.batch_size),
    }


def why_not(contender: str) -> str | None:
    if contender.startswith("torch.compile"):
        return "its time loop would be unrolled over the whole model"
    return None


def prepare_torch(case: TrainCase, arrays: Arrays, settings: Settings) -> Work:
    steps = plain_steps(case, arrays, settings) if settings.contender == "torch.nn" else Trained(case, settings)
    count = np.array(steps.parameters)

    def run(calls: int) -> float:
        start = time.perf_counter()
        steps.advance(calls)
        return time.perf_counter() - start

    return Work(
        call=lambda: steps.advance(1),
        wait=lambda loss: None,
        outputs=lambda loss: {"loss": np.array(loss), "parameters": count},
        notes=lambda: {"backend": steps.backend} if steps.backend else {},
        run=run,
        warms_up=False,
    )


class Trained:
    """Runs `train(cfg)` as a user does, in a thread that waits for orders between steps.

    Its loggers, metrics and progress bar are those that a user has.
    """

    def __init__(self, case: TrainCase, settings: Settings) -> None:
        import rich

        from seqnets.training import train

        rich.reconfigure(force_terminal=True, file=io.StringIO())  # the bar is drawn, but goes nowhere
        backend = settings.contender.partition("-")[2]
        cfg = compose_experiment(
            case,
            f"run_dir={tempfile.mkdtemp(dir=settings.scratch)}",
            "trainer.max_epochs=1000",
            f"trainer.accelerator={'cpu' if settings.device == 'cpu' else 'gpu'}",
            "+callbacks.turns._target_=benchmarks.contenders.training.WaitForOrders",
            *([f"model.backend={backend}"] if backend else []),
        )
        self._train: Callable[[], Any] = lambda: train(cfg)
        WaitForOrders.steps, WaitForOrders.answers = Queue(), Queue()
        threading.Thread(target=self._run, daemon=True).start()
        module = self._answer()
        self.parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
        self._module = module

    @property
    def backend(self) -> str:
        return _backend_of(self._module.trainer)

    def advance(self, steps: int) -> float:
        """Do so many steps, and return the loss of the last."""
        WaitForOrders.steps.put(steps)
        return self._answer()

    def _answer(self) -> Any:
        answer = WaitForOrders.answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _run(self) -> None:
        try:
            self._train()
            WaitForOrders.answers.put(RuntimeError("the training ended"))
        except BaseException as error:
            WaitForOrders.answers.put(error)


def _backend_of(trainer: Trainer) -> str:
    from seqnets.training.backend_report import BackendReport

    return next((str(c) for c in trainer.callbacks if isinstance(c, BackendReport)), "")  # type: ignore[attr-defined]


class WaitForOrders(Callback):
    """Pauses the training after as many steps as were ordered, until more are ordered.

    The queues belong to the class, because Hydra creates the callback.
    """

    steps: Queue[int]
    answers: Queue[Any]

    def __init__(self) -> None:
        self._left = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.answers.put(pl_module)
        self._left = self.steps.get()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._left -= 1
        if not self._left:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            self.answers.put(float(outputs["loss"]))
            self._left = self.steps.get()


class PlainLoop:
    """Trains on shuffled batches with the experiment's model and optimizer, without metrics and without logging.

    Freed memory is kept, as in `train.py`. Otherwise page faults would take a quarter of a step.
    """

    backend = ""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, arrays: Arrays, device: str) -> None:
        self.model, self.optimizer, self.device = model, optimizer, device
        keep_freed_memory(torch.device(device))
        self.inputs, self.targets = (torch.from_numpy(arrays[name]).to(device) for name in ("inputs", "targets"))
        self.parameters = sum(p.numel() for p in model.parameters())
        self._batches = self._shuffled(int(arrays["batch_size"]))

    def advance(self, steps: int) -> float:
        for _ in range(steps):
            rows = next(self._batches)
            self.optimizer.zero_grad()
            logits = self.model(self.inputs[rows])
            if logits.dim() == 1:
                loss = F.binary_cross_entropy_with_logits(logits, self.targets[rows].float())
            else:
                loss = F.cross_entropy(logits, self.targets[rows])
            loss.backward()
            self.optimizer.step()
        return loss.item()

    def _shuffled(self, batch_size: int) -> Iterator[Tensor]:
        while True:
            yield from torch.randperm(len(self.inputs), device=self.device).split(batch_size)


def plain_steps(case: TrainCase, arrays: Arrays, settings: Settings) -> PlainLoop:
    config = check_config(compose_experiment(case, "run_dir=."))
    torch.manual_seed(config["seed"])
    model = with_torch_layers(build(config["model"]["net"], "model.net", nn.Module)).to(settings.device)
    return PlainLoop(model, build(config["optimizer"], "optimizer")(model.parameters()), arrays, settings.device)


def with_torch_layers(model: nn.Module) -> nn.Module:
    """Replace the recurrent layers of `model` by those of `torch.nn`, in place, and return it.

    Those have two biases per gate, where an experiment may have one. A bias that the experiment lacks is zero.
    """
    for name, child in model.named_children():
        if not isinstance(child, seqnets.Recurrent):
            with_torch_layers(child)
            continue
        theirs = LAYERS[child.cell.name](
            child.input_size, child.hidden_size, child.num_layers, dropout=child.dropout,
            bidirectional=child.bidirectional, batch_first=child.batch_first, **options_of(child.cell.name),
        )  # fmt: skip
        for parameter in theirs.parameters():
            nn.init.zeros_(parameter)
        theirs.load_state_dict(child.state_dict(), strict=False)
        theirs.num_directions = child.num_directions  # which models of seqnets read
        setattr(model, name, theirs)
    return model
