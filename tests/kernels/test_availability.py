"""Where kernels run at all, and what is said elsewhere: on a CPU, on other devices, with an old Triton, or none."""

import subprocess
import sys

import pytest
import torch

import seqnets
from seqnets.errors import BackendError
from seqnets.kernels import availability
from tests.recurrences import Case, build, traced


def test_on_the_cpu_the_way_out_is_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    layer, x = build(Case(traced), backend="triton"), torch.randn(4, 2, 5)
    way_out = (
        "its kernels run on GPUs; on the CPU they run in Triton's interpreter: "
        "set TRITON_INTERPRET=1 before Python starts"
    )
    with pytest.raises(
        BackendError, match=f"'triton' cannot serve this call: {way_out}. These can: auto, cpp, reference$"
    ):
        layer(x)
    layer.backend = "auto"
    explained = seqnets.explain(layer, x)
    assert explained.backend == "cpp"
    assert explained.reasons["triton"] == way_out
    assert layer(x)[0].shape == (4, 2, 7)


@pytest.mark.parametrize(
    ("version", "interpreted", "device", "reason"),
    [
        ("3.6.0", False, "cuda", None),
        ("3.6.0", True, "cpu", None),
        ("3.7.1", False, "cuda", None),
        ("3.7.1", True, "cpu", None),
        ("3.10.0+git1a2b3c", False, "cuda", None),
        ("3.7rc1", False, "cuda", None),
        ("4.0.0", False, "cuda", None),
        ("3.7.1", True, "cuda", "unset it to run on the GPU"),
        ("3.7.1", False, "cpu", "set TRITON_INTERPRET=1"),
        ("3.7.1", False, "xpu", "CUDA and ROCm GPUs, and the input is on xpu"),
        ("3.5.1", False, "cuda", "Triton 3.5.1 is too old for its kernels, which need 3.6"),
        ("2.3.1", False, "cuda", "too old"),
        (None, False, "cuda", "Triton is not installed"),
    ],
)
def test_what_runs_where(version, interpreted, device, reason, monkeypatch):
    monkeypatch.setattr(availability, "triton_version", lambda: version)
    monkeypatch.setattr(availability, "numpy_version", lambda: "2.3.5")
    monkeypatch.setenv("TRITON_INTERPRET", "1" if interpreted else "0")
    why = availability.why_unavailable(device)
    assert (why is None) if reason is None else (reason in why)


@pytest.mark.parametrize(
    ("triton", "numpy", "interpreted", "reason"),
    [
        ("3.6.0", None, True, "needs NumPy, which is not installed (pip install numpy)"),
        ("3.6.0", "1.26.4", True, None),
        ("3.6.0", "2.3.5", True, None),
        ("3.6.0", "2.4.0", True, 'Triton 3.6.0 fails with NumPy 2.4.0: downgrade to 2.3 (pip install "numpy<2.4")'),
        ("3.6.0+git1a2b3c", "2.10.1", True, 'pip install "numpy<2.4"'),
        ("3.6.0", "3.0.0rc1", True, 'pip install "numpy<2.4"'),
        ("3.6.0", "2.4.0", False, None),  # on a GPU nothing is interpreted
        ("3.6.0", None, False, None),
        ("3.7.0", "2.4.6", True, None),
        ("3.10.0", "3.0.0", True, None),
    ],
)
def test_the_interpreter_needs_a_numpy_that_it_can_use(triton, numpy, interpreted, reason, monkeypatch):
    monkeypatch.setattr(availability, "triton_version", lambda: triton)
    monkeypatch.setattr(availability, "numpy_version", lambda: numpy)
    monkeypatch.setenv("TRITON_INTERPRET", "1" if interpreted else "0")
    why = availability.why_unavailable("cpu" if interpreted else "cuda")
    assert (why is None) if reason is None else (reason in why)


def test_without_triton_the_backend_says_so_and_auto_serves():
    code = """
import sys, importlib.metadata
find = importlib.metadata.version
def version(name):
    if "triton" in name:
        raise importlib.metadata.PackageNotFoundError(name)
    return find(name)
importlib.metadata.version = version
sys.modules["triton"] = None  # importing it raises
import torch, seqnets
from seqnets.kernels.triton.operator import recurrence
layer, x = seqnets.LSTM(3, 4, backend="triton"), torch.randn(5, 2, 3)
try:
    layer(x)
except seqnets.errors.BackendError as error:
    print(error)
layer.backend = "auto"
assert torch.compile(layer, fullgraph=True, backend="eager")(x)[0].shape == layer(x)[0].shape
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("backend 'triton' cannot serve this call: Triton is not installed"), done.stderr
    assert done.returncode == 0, done.stderr
