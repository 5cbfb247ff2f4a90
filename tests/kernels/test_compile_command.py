"""``python -m seqnets.kernels compile``: what it compiles, and finds compiled, and how it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="kernels are compiled by Triton")

from seqnets.cells import rnn_tanh
from seqnets.kernels.triton.compiling import Outcome, Refused, compile_all, missing, place_of, plan_variant
from seqnets.kernels.triton.planning.arch import ARCHS
from seqnets.kernels.triton.trial import Variant

SMALL = ("--cell", "rnn_tanh", "--hidden", "16", "--dtype", "bf16")


def command(*arguments):
    return [sys.executable, "-m", "seqnets.kernels", "compile", *map(str, arguments)]


def environment(cache, **more):
    """Those of a machine without a GPU."""
    here = {**os.environ, "TRITON_CACHE_DIR": str(cache), "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", **more}
    return {name: value for name, value in here.items() if name in more or name != "TRITON_INTERPRET"}


def run(cache, *arguments, **variables):
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(cache, **variables))


def test_kernels_are_compiled_once_for_all_processes(tmp_path):
    arguments = (*SMALL, "--arch", "sm_90", "--jobs", 2)
    first, second = run(tmp_path, *arguments), run(tmp_path, *arguments)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    # of inference, of training, and of its gradients
    assert first.stdout.startswith("3 kernels: 3 compiled, 0 were in the cache; ")
    assert second.stdout.startswith("3 kernels: 0 compiled, 3 were in the cache; ")
    assert re.search(r"3 to be compiled, which will take about \d+ s$", first.stderr, re.M)
    assert sorted(re.findall(r"rnn_tanh H=16 bfloat16 resident, sm_90: (.*): \d+\.\d s$", first.stderr, re.M)) == [
        "backward", "forward", "forward, keeping less",
    ]  # fmt: skip
    assert "[3/3]" in first.stderr and "[1/" not in second.stderr


def test_what_the_capacity_rule_has_no_plan_for_is_said(tmp_path):
    done = run(
        tmp_path, "--cell", "lstm", "--hidden", 512, "--dtype", "fp16", "--schedule", "resident", "--arch", "sm_80"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(
        r"^not planned: lstm H=512 float16 resident: .* takes .* of shared memory, and sm_80 has", done.stderr
    )
    assert "nothing can be compiled: no kernel is planned for what is asked" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*SMALL, "--arch", "sm_70"), "invalid choice: 'sm_70'"),
        ((*SMALL, "--arch", "sm_90", "--heads", "3"), "nothing can be compiled: --heads 3 does not divide --hidden 16"),
        (SMALL, "nothing can be compiled: PyTorch finds no GPU here; name one by --arch (sm_80, "),
        (("--cell", "lstn", "--hidden", "16", "--dtype", "bf16"), "did you mean 'lstm'?"),
        (("--cell", "lstm", "--dtype", "bf16"), "the following arguments are required: --hidden"),
        ((*SMALL, "--arch", "sm_90", "--jobs", "0"), "'0' is not a positive whole number"),
    ],
)
def test_what_cannot_be_compiled_ends_with_a_sentence_and_status_2(arguments, message, tmp_path):
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_cache_folder_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").touch()
    done = run(tmp_path / "file", *SMALL, "--arch", "sm_90")
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr
    assert "cannot be used: " in done.stderr and "name another in TRITON_CACHE_DIR" in done.stderr


def test_an_interpreter_compiles_nothing_and_says_so(tmp_path):
    done = run(tmp_path, *SMALL, "--arch", "sm_90", TRITON_INTERPRET="1")
    assert done.returncode == 2 and "TRITON_INTERPRET=1 is set" in done.stderr


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_no_process_outlives_the_command(how, tmp_path):
    arguments = command(
        "--cell", "rnn_tanh", "--hidden", 16, 64, 100, 128, "--dtype", "bf16", "--arch", "sm_90", "--jobs", 2
    )
    started = subprocess.Popen(
        arguments, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert any(line.startswith("[1/12") for line in started.stderr)  # both processes are at work
    if how is signal.SIGINT:
        os.killpg(started.pid, how)  # as a terminal does
    else:
        started.kill()
    _, rest = started.communicate(timeout=60)
    if how is signal.SIGINT:
        assert started.returncode == 130
        assert rest.splitlines()[-1].startswith("interrupted") and "Traceback" not in rest
    wait_until_empty(started.pid)


def wait_until_empty(session, seconds=30):
    """The last to be ended may be in the middle of a compiler that it has called."""
    end = time.monotonic() + seconds
    while processes_of(session):
        assert time.monotonic() < end, f"still there: {processes_of(session)}"
        time.sleep(0.2)


def processes_of(session):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # it has ended
            continue
        state, _, _, of = text.rpartition(")")[2].split()[:4]
        if int(of) == session and state != "Z":
            found.append(text.split()[1])
    return found


# ---- in Python

SM_90 = place_of(ARCHS["sm_90"])


def variant(cell, differentiated=False, hidden=16):
    return Variant(
        cell.key, 1, hidden, 1, False, (False,) * len(cell.masks), torch.float16, True, differentiated, False, False
    )  # fmt: skip


def test_a_kernel_that_does_not_compile_is_an_outcome_among_others(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    right = plan_variant(rnn_tanh, variant(rnn_tanh), SM_90)
    wrong = right[0]._replace(plan=right[0].plan._replace(block_b=3))  # a tile is a power of two
    seen = []
    outcomes = compile_all([*right, wrong, *right], jobs=1, done=seen.append)
    assert [outcome.request for outcome in outcomes] == [*right, wrong]
    assert [outcome.failure is None for outcome in outcomes] == [True] * len(right) + [False]
    assert "power of 2" in outcomes[-1].failure or "CompilationError" in outcomes[-1].failure
    assert set(seen) == set(outcomes)
    assert missing([*right, wrong]) == [wrong]
    assert compile_all(right) == [Outcome(request, cached=True) for request in right]


@pytest.mark.faults
def test_processes_that_cannot_begin_are_told(tmp_path):
    code = """
from seqnets.cells import rnn_tanh
from seqnets.kernels.triton.compiling import compile_all
from tests.kernels.test_compile_command import SM_90, plan_variant, variant
for outcome in compile_all(plan_variant(rnn_tanh, variant(rnn_tanh), SM_90), jobs=1):
    print(outcome.failure)
"""
    (tmp_path / "script.py").write_text(code)
    root = Path(__file__).parents[2]
    variables = environment(tmp_path, PYTHONPATH=str(root))
    done = subprocess.run([sys.executable, tmp_path / "script.py"], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout and all("below if __name__ == '__main__'" in line for line in done.stdout.splitlines())


def test_a_variant_without_a_plan_is_refused_whole():
    refused = plan_variant(rnn_tanh, variant(rnn_tanh, differentiated=True, hidden=4096), SM_90, "resident")
    assert isinstance(refused, Refused) and "shared memory" in str(refused)
