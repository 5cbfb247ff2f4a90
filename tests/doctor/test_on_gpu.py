"""The doctor and tuning where there is a GPU: what is timed is timed, and what is kept is used."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seqnets.cells import lstm

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1",
    reason="PyTorch finds no GPU, or Triton interprets: nothing can be timed",
)


def run(tmp_path, *arguments):
    environment = {**os.environ, "SEQNETS_CACHE": str(tmp_path)}
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", *arguments, "--json"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_doctor_times_kernels_beside_cudnn(tmp_path):
    found = run(tmp_path, "seqnets.doctor", "--cell", "lstm", "--dtype", "fp16", "--hidden", "64")
    assert found["gpu"] and found["agrees"] and found["environment"]["gpu"] in found["where"]
    assert [check["schedule"] for check in found["checks"]] == ["resident"] * 2 + ["tiled"] * 2
    for check in found["checks"]:
        assert check["result"] == "agrees"
        assert check["milliseconds"] > 0 and check["torch_milliseconds"] > 0
        assert check["compiled"] and all(compilation["cached"] for compilation in check["compiled"])  # beforehand


def test_a_tuned_plan_is_kept_and_used(tmp_path, monkeypatch):
    options = ("--cell", "lstm", "--hidden", "16", "--dtype", "fp16", "--batch", "16", "--steps", "8")
    found = run(tmp_path, "seqnets.kernels", "tune", *options)
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))
    from seqnets.kernels.triton.planning import select, tuned

    tuned.tuned_plan.cache_clear()
    device = torch.device("cuda", torch.cuda.current_device())
    for result in found["passes"]:
        assert result["milliseconds"] > 0 and result["tried"] > 1
        plan = select.plan_for(lstm, 16, 1, torch.float16, device, result["pass"] == "backward")
        assert plan._asdict() == result["plan"]
    tuned.tuned_plan.cache_clear()
