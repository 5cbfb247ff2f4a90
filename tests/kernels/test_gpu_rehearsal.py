"""The tests for GPUs, rehearsed on the stub: the first case of each runs to its end, so that a GPU does not meet a mistake of theirs."""

import ast
import shutil
from pathlib import Path

import pytest

from benchmarks.prove import suite

MODULE = Path(__file__).parents[1] / "gpu" / "test_gpu.py"


@pytest.mark.skipif(shutil.which("cc") is None, reason="the stub is compiled by cc, and there is none")
def test_each_runs_to_its_end(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(suite, "cores", lambda: 1)
    found = suite.run_tests(600, rehearsed=True)
    functions = [
        node.name for node in ast.parse(MODULE.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
    ]
    tests = sum(name.startswith("test_") for name in functions)
    assert found["failures"] == [] and found["status"] == "exit status 0", found["output"]
    assert found["passed"] + found["skipped"] == tests
    assert found["passed"] >= tests - 3, found["reasons"]  # two GPUs, much memory, and float16 where the CPU has none
