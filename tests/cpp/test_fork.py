"""Calls in a forked child: as a worker of a DataLoader, of a pre-fork server or of a vector environment makes them.

OpenMP's threads do not survive a fork, and what waits for them waits for ever: nothing here may.
"""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

SCRIPT = """
import faulthandler, os, signal, sys, traceback
import torch
import seqnets
from seqnets import LSTM, GRU, use_backend
from tests.recurrences import traced

faulthandler.register(signal.SIGALRM, chain=True)  # where a child hangs
torch.set_num_threads(2)
x = torch.randn(40, 64, 32)


def train(layer, x=x):
    y = layer(x)[0]
    y.square().sum().backward()
    return [y.detach(), *(p.grad for p in layer.parameters())]


def in_child(work):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(90)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, work.__name__


def agrees_with_the_reference(layer, x=x):
    with use_backend("reference"):
        expected = train(layer, x)
    layer.zero_grad()
    torch.testing.assert_close(train(layer, x), expected, rtol=1e-4, atol=1e-4)


# what the children call: torch's own operations with one thread, as in a worker of a DataLoader

def a_size_never_seen():
    torch.set_num_threads(1)
    layer = LSTM(32, 64)
    explained = seqnets.explain(layer, x)
    assert explained.backend == "aten" and "in a forked process nothing is timed" in explained.reasons["cpp"]
    agrees_with_the_reference(layer)


def a_size_that_the_parent_has_timed():
    explained = seqnets.explain(GRU(32, 48), x)
    assert "measured on this machine" in str(explained)
    assert explained.backend == timed.backend
    torch.set_num_threads(1)
    agrees_with_the_reference(GRU(32, 48))


def kernels_at_a_size_at_which_torchs_operations_take_one_thread():
    assert torch.get_num_threads() == 2
    with use_backend("cpp"):
        train(LSTM(4, 16, num_layers=2, bidirectional=True), torch.randn(40, 8, 4))


def a_cell_never_seen():  # it is traced, compiled and checked
    torch.set_num_threads(1)
    layer, wide = seqnets.Recurrent(traced, 32, 24).double(), x.double()
    assert seqnets.explain(layer, wide).backend == "cpp"
    agrees_with_the_reference(layer, wide)


def single_steps():
    torch.set_num_threads(1)
    layer = LSTM(32, 64)
    y, state = layer.step(x[0])
    layer.step(x[1], state)
    seqnets.LSTMCell(32, 64)(x[0])


def a_child_of_its_own():
    in_child(a_size_never_seen)


class Encoded(torch.utils.data.Dataset):
    layer = LSTM(32, 56)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        with torch.no_grad():
            return self.layer(x)[0][-1, index]


if USED:
    torch.randn(700, 700) @ torch.randn(700, 700)
    train(torch.nn.LSTM(32, 48))
    train(GRU(32, 48))  # and times
    train(GRU(32, 48, backend="cpp"))
    timed = seqnets.explain(GRU(32, 48), x)
    in_child(a_size_that_the_parent_has_timed)
in_child(a_size_never_seen)
in_child(kernels_at_a_size_at_which_torchs_operations_take_one_thread)
in_child(a_cell_never_seen)
in_child(single_steps)
in_child(a_child_of_its_own)
signal.alarm(90)
for batch in torch.utils.data.DataLoader(Encoded(), batch_size=2, num_workers=2, multiprocessing_context="fork"):
    assert batch.shape == (2, 56)
layer = LSTM(32, 64)
train(layer)  # the parent goes on, and times
assert "measured on this machine" in str(seqnets.explain(layer, x))
"""


LATE = """
import os, signal, sys, traceback
import torch
torch.set_num_threads(2)
torch.randn(700, 700) @ torch.randn(700, 700)
child = os.fork()
if child == 0:
    signal.alarm(90)
    from seqnets import LSTM
    LSTM(4, 16, backend="cpp")(torch.randn(40, 8, 4))
    torch.set_num_threads(1)
    LSTM(32, 64)(torch.randn(40, 64, 32))
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""

BUSY = """
import os, signal, sys, threading, time
import torch
from seqnets.kernels.cpp.printed import printed
from tests.recurrences import normed, traced
begun = threading.Event()
tracing = threading.Thread(target=lambda: (begun.set(), printed(traced)))
tracing.start()
begun.wait()
time.sleep(0.3)  # by now it imports, or traces
child = os.fork()
if child == 0:
    signal.alarm(60)
    torch.compile(torch.nn.Linear(2, 3), backend="eager")(torch.randn(4, 2))
    printed(normed)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
tracing.join()
"""


LOCKED = """
import os, sys, threading, time
import torch, seqnets
from pathlib import Path
from seqnets.kernels import store
from seqnets.once import exclusive
begun = threading.Event()
def work():
    with exclusive(), store.locked(Path(sys.argv[0]).with_name("lock"), 5):
        begun.set()
        time.sleep(1)
working = threading.Thread(target=work)
working.start()
begun.wait()
start = time.monotonic()
child = os.fork()
if child == 0:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
working.join()
assert time.monotonic() - start < 20
"""


def test_a_fork_does_not_wait_for_a_thread_that_waits_for_the_fork(tmp_path):
    """The library of file locks lets no lock change while a process forks."""
    run(LOCKED, tmp_path)


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="known on Linux alone")
def test_a_child_that_imports_the_library_late_is_served(tmp_path):
    run(LATE, tmp_path)


def test_a_fork_waits_for_a_thread_that_traces(tmp_path):
    run(BUSY, tmp_path)


@pytest.mark.parametrize(
    "used",
    [
        pytest.param(False, id="no threads used before", marks=pytest.mark.faults),
        pytest.param(True, id="threads used before"),
    ],
)
def test_forked_children_are_served(used, tmp_path):
    run(SCRIPT.replace("USED", str(used)), tmp_path)


def run(code, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(code)
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "SEQNETS_CACHE": str(tmp_path / "cache")}
    environment = {k: v for k, v in os.environ.items() if k != "SEQNETS_MEASURE"} | paths
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
