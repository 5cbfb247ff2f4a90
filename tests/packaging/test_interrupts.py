"""Commands end as shells expect when a signal or a closed pipe ends them."""

import os
import signal
import subprocess
import sys

import pytest

from seqnets.interrupts import interruptible

SOURCE = ["-m", "seqnets.kernels", "source", "gru", "--target", "cpp"]
SHOW = ["-m", "benchmarks", "show", "benchmarks/results/cpu"]


@pytest.mark.parametrize("command", [SOURCE, SHOW, [*SHOW, "--markdown"]], ids=["source", "show", "show --markdown"])
def test_a_closed_pipe_ends_a_command_quietly(command):
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run([sys.executable, *command], stdout=writer, stderr=subprocess.PIPE, timeout=120)
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
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
