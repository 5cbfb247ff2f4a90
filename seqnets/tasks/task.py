"""Provides what all tasks share: optimizer, schedule, and metrics that are means over an epoch and survive a resume."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torchmetrics import Metric

from seqnets.data.batch import Batch
from seqnets.errors import ConfigError
from seqnets.tasks.metrics import Mean
from seqnets.tasks.position import in_flight, saves_mid_epoch

PARTS = {"fit": "train", "val": "val", "test": "test"}  # "train" cannot be a key: it is a method of every module

ON_NONFINITE = ("stop", "skip", "warn")

MakesOptimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]
MakesScheduler = Callable[..., torch.optim.lr_scheduler.LRScheduler]


class Prediction(NamedTuple):
    """Holds what a trained model predicts for one input.

    Attributes:
        line: the prediction as a line to read.
        fields: the same as JSON types.
    """

    line: str
    fields: dict[str, Any]


class Task(LightningModule):
    """Combines a model with its loss and metrics. A subclass defines in `loss` what is minimized.

    Args:
        model: the model to train.
        optimizer: builds the optimizer from the parameters, such as ``partial(torch.optim.Adam, lr=1e-3)``.
        scheduler: builds the learning rate schedule from the optimizer. The schedule is stepped after each training
            step. The number of all steps is passed as ``total_steps`` if there is such an argument.
        on_nonfinite: what training does when a loss, gradient or weight is NaN or infinite: ``"stop"`` with an error,
            ``"skip"`` the step, or ``"warn"`` and continue.

    Raises:
        ConfigError: If `on_nonfinite` is none of these.

    For each metric of `metrics`, the means over an epoch are logged as ``train/<metric>``, ``val/<metric>`` and
    ``test/<metric>``. Those that `of_step` returns for one batch are logged as ``train/<metric>_step`` every
    ``log_every_n_steps``.
    """

    options: ClassVar[Mapping[str, str]] = {}  # the options of `predict`: name -> what it does

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakesOptimizer,
        scheduler: MakesScheduler | None = None,
        on_nonfinite: str = "stop",
    ) -> None:
        super().__init__()
        if on_nonfinite not in ON_NONFINITE:
            raise ConfigError(f"task.on_nonfinite is {on_nonfinite!r}; choose stop, skip or warn")
        self.on_nonfinite = on_nonfinite
        self.model = model
        self.optimizer, self.scheduler = optimizer, scheduler

    # ---- for subclasses to define

    def metrics(self) -> dict[str, Metric]:
        """Return new metrics by name, which `update` updates."""
        return {"loss": Mean()}

    def loss(self, batch: Batch, part: str) -> tuple[Tensor, Any]:
        """Return what is minimized, a scalar, and what `update` and `of_step` need besides, such as logits.

        Args:
            batch: the batch.
            part: "fit", "val" or "test".
        """
        raise NotImplementedError

    def update(self, metrics: Any, loss: Tensor, found: Any, batch: Batch) -> None:
        metrics["loss"].update(loss.detach(), weight=len(batch.targets))

    def of_step(self, loss: Tensor, found: Any, batch: Batch) -> dict[str, Tensor]:
        return {"loss": loss}

    def predict(self, encoder: Any, labels: Sequence[str], given: Sequence[str], **options: Any) -> list[Prediction]:
        """Return the predictions for `given`, which `predict.py` prints.

        Raises:
            ValueError: If an input cannot be encoded, or an option is out of range. The message names it.
        """
        raise ValueError(f"{type(self).__name__} has nothing to say to what one types: its data are made or measured")

    def read(self, encoder: Any, given: str) -> dict[str, list[str]]:
        """Run the model over `given`, and return what is read at each step.

        Returns:
            The labels of the steps by the name of the recurrent layer that reads them, or for all layers under "". The
            label of padding is "".
        """
        inputs = encoder.encode([given])
        self.model(inputs)
        numbers = [str(t) for t in range(1, inputs.shape[1] + 1)]
        return {"": encoder.tokens(inputs[0]) if hasattr(encoder, "tokens") else numbers}

    def check(self, data: Any) -> None:
        """Check the model on one example, in eval mode.

        Raises:
            ConfigError: If it does not fit the data. Other errors of the modules are left for the caller to wrap.
        """
        loss, _ = self.loss(self.example(data), "val")
        if loss.dim():
            raise ConfigError(f"the loss of {type(self).__name__} is no scalar: it has the shape {tuple(loss.shape)}")

    def example(self, data: Any) -> Batch:
        """Return an example of `data`, on this device and in the precision of the model, as Lightning will pass it."""
        dtype = next((p.dtype for p in self.parameters()), torch.get_default_dtype())
        batch = self.transfer_batch_to_device(data.example(), self.device, 0)
        return Batch(*(x.to(dtype) if x is not None and x.is_floating_point() else x for x in batch))

    # ---- called by Lightning

    def setup(self, stage: str) -> None:
        if not hasattr(self, "means"):
            self.means = nn.ModuleDict({part: nn.ModuleDict(self.metrics()) for part in PARTS}).to(self.device)

    @property
    def logged(self) -> list[str]:
        """Return the names of all means."""
        return [f"{part}/{name}" for part in PARTS.values() for name in self.metrics()]

    def on_train_start(self) -> None:
        self._logged_epoch = -1
        self._before_step: dict[str, Any] | None = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self._before_step = self._progress()
        loss, found = self.loss(batch, "fit")
        means = self._update("fit", loss, found, batch)
        # logging costs more than the metrics themselves: only at steps whose metrics are kept
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            for name, value in self.of_step(loss, found, batch).items():
                self.log(f"train/{name}_step", value, prog_bar=True)
        # once an epoch: Lightning computes the metrics when the epoch ends, even if it is cut short
        if self._logged_epoch != self.current_epoch:
            self._logged_epoch = self.current_epoch
            self._log_means("train", means)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        self._before_step = None

    def on_train_epoch_end(self) -> None:
        if self._logged_epoch != self.current_epoch:  # resumed in its last validation
            self._log_means("train", self.means["fit"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._log_means("val", self._update("val", *self.loss(batch, "val"), batch), prog_bar=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._log_means("test", self._update("test", *self.loss(batch, "test"), batch))

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        trainer: Any = self.trainer
        schedule = self.schedule(optimizer, trainer, trainer.datamodule)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def schedule(self, optimizer: torch.optim.Optimizer, trainer: Any, data: Any) -> Any:
        """Return the learning rate schedule over the whole run; None if there is none.

        Raises:
            ConfigError: If the schedule needs the number of steps of a run that has no end.
        """
        if self.scheduler is None:
            return None
        counts = "total_steps" in inspect.signature(self.scheduler).parameters
        return self.scheduler(optimizer, **({"total_steps": self._total_steps(trainer, data)} if counts else {}))

    @staticmethod
    def _total_steps(trainer: Any, data: Any) -> int:
        """Return the number of optimizer steps of the whole run.

        Lightning's estimate is not used: it starts the loaders before a resumed run has told them its position.
        """
        batches, limit = len(data.train_dataloader()), trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(limit * batches)
        limits = [trainer.max_steps] if trainer.max_steps >= 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            limits.append(math.ceil(batches / trainer.accumulate_grad_batches) * trainer.max_epochs)
        if not limits:
            raise ConfigError(
                "the schedule is over the whole run, which has no end: set trainer.max_epochs or max_steps"
            )
        return min(limits)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if saves_mid_epoch(self.trainer):  # within an epoch its means continue after a resume
            # a failed step is repeated, so its checkpoint holds the state before it
            checkpoint.update((in_flight(self.trainer) and self._before_step) or self._progress())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        states = checkpoint.get("train_means", {})
        for name, metric in self._fit_means():
            for state, value in states.get(name, {}).items():
                setattr(metric, state, tree_map_only(Tensor, lambda t: t.to(self.device), value))

    def _progress(self) -> dict[str, Any]:
        """Return the state of the epoch's metrics so far, as checkpoints keep it."""
        # copies, because steps change tensors in place and append to lists
        means = {
            name: {
                state: value.clone() if isinstance(value, Tensor) else list(value)
                for state, value in metric.metric_state.items()
            }
            for name, metric in self._fit_means()
        }
        return {"train_means": means}

    def _fit_means(self) -> Any:
        return self.means["fit"].items()  # type: ignore[operator]

    def _update(self, part: str, loss: Tensor, found: Any, batch: Batch) -> Any:
        means = self.means[part]
        self.update(means, loss, found, batch)
        return means

    def _log_means(self, part: str, means: Any, prog_bar: bool = False) -> None:
        for name, metric in means.items():
            self.log(f"{part}/{name}", metric, on_step=False, on_epoch=True, prog_bar=prog_bar)
