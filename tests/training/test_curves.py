import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from seqnets.training.curves import plot_curves


@pytest.fixture
def metrics(tmp_path):
    rows = []
    for step in range(40):
        rows.append({"epoch": step // 20, "step": step, "train/loss_step": 1 / (step + 1), "train/accuracy_step": 0.5})
        if step % 20 == 19:
            epoch = {"epoch": step // 20, "step": step}
            rows.append(epoch | {"train/loss_epoch": 0.4, "train/accuracy_epoch": 0.6, "seconds_per_epoch": 3.0})
            rows.append(epoch | {"val/loss": 0.5, "val/accuracy": 0.7})
    rows.append({"epoch": 2, "step": 40, "test/loss": 0.6, "test/accuracy": 0.8})
    pd.DataFrame(rows).to_csv(tmp_path / "metrics.csv", index=False)
    return tmp_path / "metrics.csv"


def test_both_figures_with_every_split(metrics, tmp_path, monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    plot_curves(metrics, tmp_path / "curves.png", "a run")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    axes = figures[0].axes
    assert [a.get_ylabel() for a in axes] == ["loss", "accuracy"]
    lines = {line.get_label(): line for line in axes[1].lines}
    assert list(lines["train, mean of the epoch"].get_ydata()) == [0.6, 0.6]
    assert list(lines["validation"].get_xdata()) == [19, 39]
    assert list(lines["test 0.8000"].get_ydata()) == [0.8]
    smooth = {line.get_label(): line for line in axes[0].lines}["train, smoothed"].get_ydata()
    assert len(smooth) == 40
    assert (np.diff(smooth) < 0).all()


def test_nothing_to_draw_is_no_picture(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,test/loss\n0,0,0.5\n")
    plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", "a run")
    assert not (tmp_path / "curves.png").exists()
