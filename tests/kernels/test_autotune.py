"""Tuning where nothing can be measured, and the arithmetic of what is."""

import argparse
import json

import pytest
import torch

from seqnets.cells import lstm
from seqnets.errors import BackendError
from seqnets.kernels import timing
from seqnets.kernels.triton.planning.plan import Plan
from seqnets.kernels.tuning import autotune
from seqnets.kernels.tuning import command as tune_command
from seqnets.kernels.tuning.autotune import Tuned, ranking, tune

DEFAULT, A, B, C = (Plan("resident", rows, 64, 0, 8, 1, "ieee") for rows in (16, 32, 64, 128))


def test_turns_are_pairs():
    """The machine slows down with time, which a plan that is slower in each turn but the last would profit from."""
    drift = [1.0, 2.0, 4.0, 8.0, 16.0]
    times = {
        DEFAULT: drift,
        A: [0.9 * t for t in drift],
        B: [0.8 * t for t in drift[:-1]] + [100.0],  # once disturbed
        C: [1.1, 2.2, 4.4, 1.0, 1.0],
    }
    assert ranking(times, DEFAULT) == [B, A, DEFAULT]


def test_a_hundredth_decides_nothing():
    assert ranking({DEFAULT: [1.0] * 3, A: [0.99] * 3}, DEFAULT) == [DEFAULT]


def test_competitors_run_in_turns(monkeypatch):
    now, log = [0.0], []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = now[0]

        def synchronize(self):
            log.append("waited")

        def elapsed_time(self, end):
            return end.at - self.at

    def competitor(name, milliseconds):
        def run():
            now[0] += milliseconds
            log.append(name)

        return run

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    times = timing.time_on_gpu({"a": competitor("a", 1.0), "b": competitor("b", 2.0)})
    assert times == {"a": [1.0] * timing.TURNS, "b": [2.0] * timing.TURNS}
    warm_up, turns = 2 * timing.WARM_UP, log[2 * timing.WARM_UP :]
    assert sorted(log[:warm_up]) == ["a"] * timing.WARM_UP + ["b"] * timing.WARM_UP
    assert turns == ["a", "waited", "b", "waited"] * timing.TURNS


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_without_a_gpu_there_is_nothing_to_measure():
    with pytest.raises(BackendError, match="PyTorch finds none"):
        tune(lstm, 128, torch.bfloat16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_the_command_says_so_in_a_sentence(capsys):
    assert command("--cell", "lstm", "--hidden", "128", "--dtype", "bf16", "--json") == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and "PyTorch finds none" in err


def test_the_command_needs_triton(capsys, monkeypatch):
    monkeypatch.setattr(tune_command, "why_unavailable", lambda device: f"no Triton for {device}")
    assert command("--cell", "lstm", "--hidden", "128", "--dtype", "bf16") == 2
    assert capsys.readouterr().err == "nothing can be tuned here: no Triton for cuda\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cell", "lstn", "--hidden", "8", "--dtype", "fp16"], "did you mean 'lstm'?"),
        (["--cell", "lstm", "--hidden", "-8", "--dtype", "fp16"], "positive"),
        (["--cell", "lstm", "--hidden", "8", "--dtype", "int8"], "invalid choice"),
        (["--cell", "lstm", "--hidden", "8"], "--dtype"),
    ],
)
def test_the_command_refuses_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(*arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_the_command_prints_what_was_found(monkeypatch, capsys):
    found = [Tuned(False, A, DEFAULT, 1.0, 2.0, 9, {B: "it is wrong"}), Tuned(True, DEFAULT, DEFAULT, 3.0, 3.0, 5, {})]
    asked = []
    monkeypatch.setattr(autotune, "tune", lambda *about: asked.append(about) or found)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    options = ("--cell", "lstm", "--hidden", "64", "--dtype", "bf16", "--heads", "2", "--batch", "8")
    assert command(*options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1.000 ms" in lines[0] and "2.000 ms" in lines[0] and "it is wrong" in lines[1]
    assert command(*options, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [entry["pass"] for entry in printed["passes"]] == ["forward", "backward"]
    assert printed["passes"][0]["plan"] == A._asdict() and printed["passes"][0]["rejected"][0]["why"] == "it is wrong"
    assert asked == [(lstm, 64, torch.bfloat16, 2, 8, timing.STEPS)] * 2


def command(*arguments):
    parser = argparse.ArgumentParser()
    tune_command.add_tune_arguments(parser)
    return tune_command.tune_command(parser.parse_args(arguments))
