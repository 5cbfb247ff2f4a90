"""`python -m benchmarks.cpu_layers`, in small: that it runs, and tells what it measured."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import cpu_layers

SHAPE = (3, 2, 4, 5)


@pytest.fixture
def measure(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu_layers, "SHAPES", [SHAPE])

    def run(*arguments):
        output = tmp_path / "figures.json"
        monkeypatch.setattr(sys, "argv", ["cpu_layers", "--threads", "1", "--output", str(output), *arguments])
        assert cpu_layers.main() == 0
        return json.loads(output.read_text())

    return run


def test_times(measure, capsys):
    found = measure("--seconds", "0.01", "--cells", "lstm", "light")
    assert [(row["cell"], row["mode"]) for row in found["rows"]] == [
        ("lstm", "train"), ("lstm", "infer"), ("light", "train"), ("light", "infer"),
    ]  # fmt: skip
    for row in found["rows"]:
        assert row["turns"] >= 3 and row["ratio_p20"] <= row["ratio"] <= row["ratio_p80"]
        assert found["means"][f"{row['cell']} {row['mode']}"] == pytest.approx(row["ratio"])
    assert found["torch_mm_gflops"] > 0 and found["environment"]["threads"] == 1
    assert "3, 2, 4, 5" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's accounts of memory")
def test_memory(measure, capsys):
    (row,) = measure("--memory", "--cells", "gru")["rows"]
    assert row["our_mb"] >= 0 and row["their_mb"] >= 0
    assert "torch.nn.GRU" in capsys.readouterr().out
