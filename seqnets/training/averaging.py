"""Averages the weights over the course of training."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from seqnets.tasks.position import in_validation


class NTASGD(Optimizer):
    """Implements plain SGD that starts to average its iterates once the validation loss stops improving.

    θ ← θ - lr · (∇ + weight_decay · θ). From the trigger on also θ̄ ← θ̄ + (θ - θ̄) / n, where n counts the steps from
    there. The trigger is a loss given to `observe` that is above the lowest of all losses before it, not counting the
    last `patience` of them.

    Args:
        params: the parameters, as for every optimizer.
        lr: the learning rate.
        weight_decay: the L2 penalty.
        patience: the number of latest losses that the trigger does not compare with.

    Raises:
        ValueError: If an option is out of range.

    Source: Merity, Keskar and Socher, "Regularizing and optimizing LSTM language models", ICLR 2018, algorithm 1.
    """

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float = 0.0, patience: int = 5) -> None:
        if lr <= 0 or weight_decay < 0 or patience < 1:
            raise ValueError(
                f"lr must be positive, weight_decay not negative, patience at least 1: {lr}, {weight_decay}, {patience}"
            )
        super().__init__(
            params, {"lr": lr, "weight_decay": weight_decay, "patience": patience, "losses": [], "count": None}
        )

    @property
    def averaging(self) -> bool:
        return self.param_groups[0]["count"] is not None

    def observe(self, loss: float) -> None:
        """Record the latest validation loss, and start averaging if it is the trigger."""
        for group in self.param_groups:
            earlier = group["losses"][: -group["patience"]]
            if group["count"] is None and earlier and loss > min(earlier):
                group["count"] = 0
            group["losses"] = [*group["losses"], loss]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["count"] is not None:
                group["count"] += 1
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(parameter.grad, alpha=-group["lr"])
                if group["count"] is not None:
                    state = self.state[parameter]
                    if "mean" not in state:
                        state["mean"] = parameter.clone()
                    state["mean"].lerp_(parameter, 1 / group["count"])
        return loss

    @torch.no_grad()
    def swap(self) -> None:
        """Swap the weights with their averages, where there are any."""
        states = {p: self.state[p] for group in self.param_groups for p in group["params"] if "mean" in self.state[p]}
        held = [parameter.clone() for parameter in states]  # clones all before anything changes: memory may run out
        for (parameter, state), iterate in zip(states.items(), held, strict=True):
            parameter.copy_(state["mean"])
            state["mean"].copy_(iterate)


class AveragedWeights(Callback):
    """Drives `NTASGD`: reports the validation loss to it, and uses the averages in validation, tests and checkpoints.

    Args:
        monitor: the name of the metric that is reported.

    Attributes:
        changing_weights: whether a swap of weights and averages is in progress, or was interrupted by an error.
    """

    def __init__(self, monitor: str = "val/loss") -> None:
        self.monitor = monitor
        self.changing_weights = self._swapped = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if in_validation(trainer):
            self._swap(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if in_validation(trainer):
            self._swap(trainer)
            self._optimizer(trainer).observe(float(trainer.callback_metrics[self.monitor]))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._swapped and not self.changing_weights:
            self._swap(trainer)

    def _swap(self, trainer: Trainer) -> None:
        self.changing_weights = True
        try:
            self._optimizer(trainer).swap()
        except RuntimeError:  # out of memory for the copies: nothing has changed yet
            self.changing_weights = False
            raise
        self._swapped = not self._swapped
        self.changing_weights = False

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Training leaves the averages. on_train_end would not do: a run that resumes with its test never reaches it.
        self._optimizer(trainer).swap()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        means = self._means(trainer, pl_module)
        checkpoint["iterates"] = {name: checkpoint["state_dict"][name] for name in means}
        checkpoint["state_dict"] = checkpoint["state_dict"] | means

    @torch.no_grad()
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        for name, parameter in pl_module.named_parameters(remove_duplicate=False):
            if name in checkpoint.get("iterates", {}):
                parameter.copy_(checkpoint["iterates"][name])

    def _means(self, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
        state = self._optimizer(trainer).state
        named = module.named_parameters(remove_duplicate=False)
        return {name: state[p]["mean"] for name, p in named if "mean" in state.get(p, {})}

    @staticmethod
    def _optimizer(trainer: Trainer) -> NTASGD:
        return trainer.optimizers[0]  # type: ignore[return-value]
