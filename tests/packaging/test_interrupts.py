"""Commands end as shells expect when a signal or a closed pipe ends them."""

import os
import signal
import subprocess
import sys

import pytest

from seqnets.interrupts import interruptible
from tests.pipes import run_into_a_closed_pipe

SOURCE = ["-m", "seqnets.kernels", "source", "gru", "--target", "cpp"]
SHOW = ["-m", "benchmarks", "show", "benchmarks/results/cpu"]
HELP = ["-m", "seqnets.kernels", "--help"]


@pytest.mark.parametrize(
    "command",
    [SHOW, *(pytest.param(others, marks=pytest.mark.faults) for others in (SOURCE, [*SHOW, "--markdown"], HELP))],
    ids=" ".join,
)
def test_a_closed_pipe_ends_a_command_quietly(command):
    assert run_into_a_closed_pipe(*command) == (141, b"")


@pytest.mark.parametrize(
    ("end", "status", "told"),
    [
        ("sys.exit(2)", 2, b""),
        ("os.kill(os.getpid(), 15)", 143, b"interrupted\n"),
        ("1 / 0", 1, b"ZeroDivisionError: division by zero\n"),
        ("sys.exit('the worker is gone')", 1, b"the worker is gone\n"),
    ],
)
def test_a_closed_pipe_hides_no_other_end(end, status, told):
    code = f"import os, sys; from seqnets.interrupts import interruptible\nwith interruptible(): print('a'); {end}"
    found, errors = run_into_a_closed_pipe("-c", code)
    assert found == status and errors.endswith(told)


def test_the_pipe_of_a_worker_is_none_that_was_closed():
    code = """
from seqnets.interrupts import interruptible
with interruptible():
    try:
        raise BrokenPipeError("of a worker")
    except BrokenPipeError:
        raise SystemExit(1)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert process.returncode == 1
    with pytest.raises(BrokenPipeError, match="of a worker"), interruptible():
        raise BrokenPipeError("of a worker")


def test_a_command_may_have_no_output_and_run_in_a_thread():
    code = """
import sys, threading
from seqnets.interrupts import interruptible
sys.stdout = None
def run():
    with interruptible():
        done.append(1)
done = []
thread = threading.Thread(target=run); thread.start(); thread.join()
with interruptible():
    sys.exit(0 if done else 3)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert (process.returncode, process.stderr) == (0, b"")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_in_a_word(number, status, capsys):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as caught, interruptible():
        os.kill(os.getpid(), number)
    assert caught.value.code == status
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(number) == before


def test_other_ends_pass():
    with pytest.raises(SystemExit, match="1"), interruptible():
        sys.exit(1)
    with pytest.raises(ZeroDivisionError), interruptible():
        _ = 1 / 0
