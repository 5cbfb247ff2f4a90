"""Plots where a translator looks as it writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from matplotlib.axes import Axes

from seqnets.analysis.style import new_figure
from seqnets.data.sentences import PAD
from seqnets.errors import ConfigError
from seqnets.tasks.translation import late

INCH = 0.3  # inches per subword


class AttentionMaps(Callback):
    """Plots ``attention.png`` after the test: sentences, their translations, and the attention weights between them.

    Both are shown by subword. A dot marks subwords that continue a word.

    Args:
        folder: the folder of the picture.
        rows: the sentences of the test split to plot, in the order of its files.
    """

    def __init__(self, folder: str, rows: Sequence[int] = (0, 1, 2, 3)) -> None:
        self.picture, self.rows = Path(folder) / "attention.png", list(rows)

    def prepare(self, task: Any, data: Any) -> None:
        """Check, before the run, that there are such sentences.

        Raises:
            ConfigError: If not.
        """
        count = len(data.test_dataloader().dataset)
        if not self.rows or any(not isinstance(row, int) or not 0 <= row < count for row in self.rows):
            raise ConfigError(f"callbacks.attention.rows are {self.rows}, but must be some of 0 to {count - 1}")

    @torch.no_grad()
    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        split = data.test_dataloader().dataset
        training = pl_module.training
        pl_module.eval()
        maps = []
        for row in self.rows:
            batch = split.__getitems__([row])
            inputs, lengths = batch.inputs.to(pl_module.device), batch.lengths.to(pl_module.device)
            ids, _ = pl_module.translate(inputs, lengths)
            weights = pl_module.model.attention(inputs, late(ids), lengths)[0].float().cpu()
            read = [_shown(piece) for piece in data.encoder.pieces(inputs[inputs != PAD], "source")]
            written = [_shown(piece) for piece in data.encoder.pieces(ids[0])]
            maps.append((read, [*written, "end"][: len(weights)], weights[: len(written) + 1]))
        pl_module.train(training)
        plot_maps(maps, self.picture)


def plot_maps(maps: Sequence[tuple[list[str], list[str], torch.Tensor]], picture: Path) -> None:
    """Plot a panel for each map, and write the picture as a PNG.

    Args:
        maps: for each, the subwords read (S), the subwords written (T), and the attention weights ``(T, S)``.
        picture: the file.
    """
    columns = min(2, len(maps))
    rows = -(-len(maps) // columns)
    width = max(len(read) for read, _, _ in maps) * INCH + 1.3
    height = max(len(written) for _, written, _ in maps) * INCH + 1.3
    figure = new_figure(columns * width + 0.7, rows * height + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(maps) :]:
        axes.set_visible(False)
    for axes, (read, written, weights) in zip(grid.flat, maps, strict=False):
        image = _draw(axes, read, written, weights)
    bar = figure.colorbar(image, ax=grid, shrink=0.5, aspect=30, pad=0.02)
    bar.set_label("attention weight")
    bar.outline.set_visible(False)
    figure.savefig(picture, dpi=150)


def _draw(axes: Axes, read: list[str], written: list[str], weights: torch.Tensor) -> Any:
    image = axes.pcolormesh(weights.numpy(), cmap="Blues", vmin=0, vmax=1, edgecolors="0.93", linewidth=0.6)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.xaxis.tick_top()
    axes.set_xticks([k + 0.5 for k in range(len(read))], read, rotation=60, ha="left", rotation_mode="anchor")
    axes.set_yticks([k + 0.5 for k in range(len(written))], written)
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_color("0.8")
    return image


def _shown(piece: str) -> str:
    """Return the subword without spaces, with a dot in front if it continues a word."""
    return f"·{piece}" if piece[:1].isalnum() else piece.strip()
