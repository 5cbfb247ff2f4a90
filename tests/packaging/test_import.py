"""What installing and importing the library takes."""

import subprocess
import sys
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[2]


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_the_library_needs_torch_alone():
    code = """
import sys, torch
for name in ("triton", "lightning", "pytorch_lightning", "hydra", "omegaconf", "torchmetrics", "pandas", "pyarrow",
             "tokenizers", "datasets", "rich", "matplotlib", "tensorboard"):
    sys.modules[name] = None  # importing it raises
import seqnets
y, (h, c) = seqnets.LSTM(3, 4)(torch.randn(5, 2, 3))
y.sum().backward()
assert seqnets.Recurrent("gru", 3, 4, backend="reference")(torch.randn(5, 2, 3))[0].shape == (5, 2, 4)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_importing_it_loads_nothing_but_itself_beyond_torch():
    done = run("import sys, torch; before = set(sys.modules); import seqnets; print(*(set(sys.modules) - before))")
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "seqnets" in loaded
    assert loaded <= {"seqnets", "torch"} | sys.stdlib_module_names


def test_the_kernels_are_installed_inside_the_package():
    packages = find_packages(str(ROOT), include=["seqnets", "seqnets.*"])
    assert "seqnets.kernels" in packages
    assert not any(p.split(".")[0] == "kernels" for p in packages)
    assert (ROOT / "seqnets/kernels").resolve() == ROOT / "kernels"
