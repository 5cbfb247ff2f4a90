"""The GPU tests run where there is no GPU: one case of each, on a stub that computes nothing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("cc") is None, reason="the stub of a GPU is compiled by cc, which is not here")
def test_every_gpu_test_runs_on_a_stub():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "-q", "tests/gpu"]
    environment = os.environ | {"SEQNETS_STUB_GPU": "sample"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:]
    passed = re.search(r"(\d+) passed, (\d+) skipped", done.stdout)
    assert passed, done.stdout[-500:]
    assert int(passed[1]) >= 16  # functions; those of two GPUs and of what auto chooses are skipped
