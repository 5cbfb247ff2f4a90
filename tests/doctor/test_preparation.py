"""What the doctor compiles beforehand on a GPU, what it checks there, and how long it says that it will take."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="kernels are compiled by Triton")

import seqnets
from seqnets.doctor import __main__ as command
from seqnets.doctor.checks import Case, Check
from seqnets.doctor.preparation import absent_kernels, seconds_of
from seqnets.kernels.availability import CHECK
from seqnets.kernels.triton import compiling
from seqnets.kernels.triton.planning.arch import ARCHS
from seqnets.tolerance import Error
from tests.doctor import user_cells

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
LSTM = seqnets.CELLS["lstm"]
H100 = compiling.place_of(ARCHS["sm_90"])


@pytest.fixture
def as_if_on_a_gpu(monkeypatch, tmp_path):
    """An H100, for which nothing was compiled yet."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(compiling, "place_here", lambda device: H100)


def cases(cell, schedule, hidden=16):
    return [Case(cell, torch.bfloat16, hidden, schedule, backward) for backward in (False, True)]


def test_every_kernel_of_the_checks_is_listed_once(as_if_on_a_gpu):
    found = absent_kernels([case for name in ("resident", "tiled", "cpp") for case in cases(LSTM, name)], GPU)
    assert [request.plan.schedule for request in found] == ["resident"] * 8 + ["tiled"] * 8
    compiling.compile_all(found[:1])
    assert absent_kernels(cases(LSTM, "resident"), GPU) == found[1:8]


def test_what_cannot_be_compiled_is_left_to_its_check(as_if_on_a_gpu):
    assert absent_kernels([*cases(user_cells.sorts, "tiled"), *cases(LSTM, "resident", hidden=4096)], GPU) == []


def test_nothing_is_compiled_for_the_interpreter():
    assert absent_kernels(cases(LSTM, "resident"), CPU) == []


def test_kernels_that_are_there_take_no_time(monkeypatch):
    monkeypatch.setattr(compiling, "cores", lambda: 16)
    there, absent = (seconds_of(cases(LSTM, "tiled"), GPU, kernels) for kernels in (0, 160))
    assert 0 < there < absent
    assert seconds_of(cases(LSTM, "tiled"), GPU, 320) > absent
    monkeypatch.setattr(compiling, "cores", lambda: 2)
    assert seconds_of(cases(LSTM, "tiled"), GPU, 160) > absent


def test_cpp_is_compiled_once_for_a_cell_and_a_dtype(monkeypatch, tmp_path):
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))
    seqnets.kernels.cpp.library._library.cache_clear()  # it may be loaded already
    both = cases(LSTM, "cpp")
    first = seconds_of(both, CPU, 0)
    seqnets.kernels.cpp.library.library(LSTM, torch.bfloat16)
    libraries = list(Path(tmp_path).rglob("lstm-*.so"))
    assert len(libraries) == 1
    assert seconds_of(both, CPU, 0) == pytest.approx(first - 8.0)


def run_command(monkeypatch, capsys, *arguments):
    """What is checked by the command on a GPU, and what it says and compiles beforehand."""
    checked, compiled = [], []

    def check(case, device):
        checked.append(case)
        return Check(case, worst=Error("y", 0.1, 0.2))

    monkeypatch.setenv(CHECK, "0")  # as the command does, for itself
    monkeypatch.setattr(command, "check", check)
    monkeypatch.setattr(command, "environment", lambda device: {})
    monkeypatch.setattr(command, "where_it_ran", lambda device: "nowhere")
    monkeypatch.setattr(compiling, "compile_all", lambda requests, done: compiled.extend(requests))
    assert command.main(list(arguments)) == 0
    return checked, compiled, capsys.readouterr().err


def test_on_a_gpu_the_default_is_what_takes_two_minutes(as_if_on_a_gpu, monkeypatch, capsys):
    monkeypatch.setattr(compiling, "cores", lambda: 16)
    checked, compiled, said = run_command(monkeypatch, capsys)
    assert {case.schedule for case in checked} == {"resident", "tiled"}
    assert {case.dtype for case in checked} == {torch.float16, torch.bfloat16, torch.float32}
    assert {case.cell.name for case in checked} == set(seqnets.CELLS)
    assert f"48 checks, and before them {len(compiled)} kernels to compile: about 2 minutes" in said
    assert seconds_of(checked, GPU, len(compiled)) <= 120


def test_on_a_gpu_the_rest_is_checked_where_it_is_asked_for(as_if_on_a_gpu, monkeypatch, capsys):
    arguments = ("--cell", "gru", "--dtype", "fp64", "--hidden", "16", "--schedule", "cpp", "tiled")
    checked, compiled, _ = run_command(monkeypatch, capsys, *arguments)
    assert [(case.schedule, case.dtype) for case in checked] == [
        (name, torch.float64) for name in ("cpp", "cpp", "tiled", "tiled")
    ]
    assert {request.plan.schedule for request in compiled} == {"tiled"}


def test_a_gpu_that_cannot_be_asked_is_left_to_the_checks(as_if_on_a_gpu, monkeypatch, capsys):
    def fail(device):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(compiling, "place_here", fail)
    checked, compiled, said = run_command(monkeypatch, capsys, "--cell", "gru", "--dtype", "fp16")
    assert (len(checked), compiled) == (4, [])
    assert "nothing is compiled beforehand: RuntimeError: no C compiler" in said
