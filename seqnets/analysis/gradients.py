"""Measures vanishing and exploding gradients: how much of the loss reaches back to each time step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import OmegaConf
from torch import Tensor, nn

from seqnets import Recurrent, use_backend
from seqnets.analysis.jobs import Job
from seqnets.analysis.style import color, new_figure, plain
from seqnets.errors import ConfigError
from seqnets.models.states import as_tuple

FILE = "gradient_flow.csv"
BEFORE, AFTER = "before training", "after training"
DIVERGED = 1e3  # the upper limit of the loss axis


class _StepByStep(nn.Module):
    """Runs a recurrent layer as a loop over its steps, and keeps the state after each."""

    num_directions = 1

    def __init__(self, layer: Recurrent) -> None:
        super().__init__()
        self.layer = layer
        self.states: list[Any] = []

    def forward(self, x: Tensor, state: Any = None, lengths: None = None) -> tuple[Tensor, Any]:
        outputs = []
        for x_t in x:
            _, state = self.layer.step(x_t, state)
            own = as_tuple(state)
            self.states.append(own)
            for s in own:
                s.retain_grad()
            outputs.append(own[0][-1])  # not the layer's output: that is another tensor, which no later step reads
        return torch.stack(outputs), state


def gradient_norms(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Compute ``‖∂loss/∂s_t‖`` for each state s of the recurrent layer at every step t, as a mean over the batch.

    The derivative is the total one, along all later steps. It is computed step by step with the cell's own operations,
    because kernels do not keep it.

    Args:
        model: a model with one recurrent layer of one direction.
        loss: runs the model and returns the loss.

    Returns:
        For each state by name, the norms ``(T,)``.

    Raises:
        ConfigError: If the model has other recurrent layers.

    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.
    """
    name, layer = _the_layer(model)
    loop = _StepByStep(layer)
    model.set_submodule(name, loop)
    try:
        with use_backend("reference"), torch.enable_grad():
            loss().backward()
    finally:
        model.set_submodule(name, layer)
        model.zero_grad(set_to_none=True)

    def norms(number: int) -> Tensor:
        after = [states[number] for states in loop.states]
        return torch.stack([s.new_zeros(()) if s.grad is None else s.grad.norm(dim=-1).mean() for s in after])

    return {state: norms(number) for number, state in enumerate(layer.cell.states)}


def _the_layer(model: nn.Module) -> tuple[str, Recurrent]:
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, Recurrent)]
    if len(layers) != 1 or layers[0][1].num_layers != 1 or layers[0][1].bidirectional:
        raise ConfigError("gradient norms by step are of models with one recurrent layer of one direction")
    return layers[0]


class GradientFlow(Callback):
    """Writes `gradient_norms` before and after training to ``gradient_flow.csv``, and plots them.

    The norms are those of one batch of validation data.

    Args:
        folder: the folder of the run.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._rows: list[dict[str, Any]] = []

    def prepare(self, task: Any, data: Any) -> None:
        """Check, before the run, that the model has one recurrent layer of one direction.

        Raises:
            ConfigError: If not.
        """
        _the_layer(task.model)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:  # not in a resumed run
            self._measure(trainer, pl_module, BEFORE)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # not in on_train_end, which a run that resumes with its test never reaches
        self._measure(trainer, pl_module, AFTER)
        table = pd.DataFrame(self._rows)
        table.to_csv(self.folder / FILE, index=False)
        _draw_run(table, self.folder / "gradient_flow.png")

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._rows = list(state_dict["rows"])

    def _measure(self, trainer: Trainer, module: Any, when: str) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batch = trainer.precision_plugin.convert_input(next(iter(data.val_dataloader())))
        batch = module.transfer_batch_to_device(batch, module.device, 0)
        with torch.random.fork_rng():
            norms = gradient_norms(module.model, lambda: module.loss(batch, "val")[0])
        for name, values in norms.items():
            for t, value in enumerate(values.tolist(), 1):
                self._rows.append({"when": when, "state": name, "t": t, "norm": value})


class GradientFlowOfCells:
    """Plots ``gradient_flow.png`` of a sweep over cells, with and without clipping, and over a third setting.

    Each value of that setting has a row, with gradient norms before and after training, and the training loss.

    Args:
        row: the setting that the rows are for, such as the size of the recurrent weights.
        row_name: its name in the picture.
    """

    def __init__(self, row: str, row_name: str) -> None:
        self.row, self.row_name = row, row_name

    def __call__(self, folder: Path, jobs: Sequence[Job]) -> None:
        jobs = [job for job in jobs if (job.folder / FILE).exists()]
        rows = list(dict.fromkeys(job.setting(self.row) for job in jobs))
        if not jobs:
            return
        picture = new_figure(13.5, 4.0 * len(rows))
        for value, line in zip(rows, picture.subplots(len(rows), 3, squeeze=False), strict=True):
            lost = []
            for job in [job for job in jobs if job.setting(self.row) == value]:
                cell, clipped = job.setting("model.cell.name"), job.setting("trainer.gradient_clip_val") is not None
                table = pd.read_csv(job.folder / FILE)
                if not clipped:  # before training, clipping makes no difference
                    _draw_norms(line[0], table[table["when"] == BEFORE], color(cell), cell)
                _draw_norms(line[1], table[table["when"] == AFTER], color(cell), None, "-" if clipped else ":")
                _draw_loss(line[2], job, color(cell), "-" if clipped else ":")
                if not math.isfinite(job.result["metrics"]["test/loss"]):
                    lost.append(f"{cell}, {'clipped' if clipped else 'not clipped'}: no number any more")
            line[2].set_xlabel("\n".join(["training step", *lost]))
            line[0].set_title(f"{self.row_name} {value}: before training", loc="left", fontsize=10)
            line[1].set_title("after training", loc="left", fontsize=10)
            line[2].set_title("training loss", loc="left", fontsize=10)
            line[0].legend(frameon=False, fontsize=9)
            for axes in line[1:]:
                axes.plot([], [], color="0.3", label="clipped")
                axes.plot([], [], color="0.3", linestyle=":", label="not clipped")
            guess = jobs[0].result["data"]["guess"]
            line[2].axhline(guess, color="0.5", linewidth=0.8, linestyle="--", label="guessing")
            for axes in line[1:]:
                axes.legend(frameon=False, fontsize=9)
            for axes in line[:2]:
                axes.set(yscale="log", xlabel="time step t", ylabel="‖∂loss / ∂h_t‖")
            line[2].set(yscale="log", ylabel="mean squared error", ylim=(None, DIVERGED))
            for axes in line:
                plain(axes)
        picture.savefig(folder / "gradient_flow.png", dpi=150)


def _draw_run(table: pd.DataFrame, file: Path) -> None:
    picture = new_figure(7.2, 4.2)
    axes = picture.subplots()
    for when, style in ((BEFORE, ":"), (AFTER, "-")):
        for number, (state, of) in enumerate(table[table["when"] == when].groupby("state", sort=False)):
            _draw_norms(axes, of, color("", number), f"{state}, {when}", style)
    axes.set(yscale="log", xlabel="time step t", ylabel="‖∂loss / ∂state_t‖")
    axes.legend(frameon=False, fontsize=9)
    plain(axes)
    picture.savefig(file, dpi=150)


def _draw_norms(axes: Any, table: pd.DataFrame, paint: str, label: str | None, style: str = "-") -> None:
    # h; other states of a cell are in the picture of its own run
    first = table[table["state"] == table["state"].iloc[0]]
    shown = first[first["norm"] > 0]  # drops NaN and what has vanished altogether
    axes.plot(shown["t"], shown["norm"], color=paint, linestyle=style, linewidth=1.6, label=label)


def _course(folder: Path) -> pd.DataFrame:
    """Return the metrics of a run, preceded by those of the runs that it resumed."""
    table = pd.read_csv(folder / "metrics.csv")
    if resumed := OmegaConf.load(folder / "config.yaml").ckpt_path:
        earlier = _course(Path(resumed).parents[1])
        table = pd.concat([earlier[earlier["step"] < table["step"].min()], table])
    return table


def _draw_loss(axes: Any, job: Job, paint: str, style: str) -> None:
    table = _course(job.folder)
    if "train/loss_step" in table:
        losses = table.set_index("step")["train/loss_step"].dropna()
        axes.plot(
            losses.index,
            losses.ewm(halflife=max(1, len(losses) / 60)).mean(),
            color=paint,
            linestyle=style,
            linewidth=1.4,
        )
