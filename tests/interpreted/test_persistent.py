"""The persistent prototype, a time step per launch: all but the waiting, which the interpreter cannot run,
against float64.
"""

import pytest
import torch

from benchmarks.prove import work
from benchmarks.prove.variants.try_persistent import Case, Problem
from tests.tolerance import assert_within_policy


@pytest.mark.parametrize(
    "case",
    [
        Case("counter", 3, 5, 64, "fp32", rows=16, units=16, parts=1, warps=4),
        Case("counter", 3, 17, 64, "fp32", rows=16, units=32, parts=2, warps=4),
        Case("counter", 1, 1, 64, "fp16", rows=16, units=16, parts=2, warps=4),
    ],
    ids=str,
)
def test_a_step_per_launch_is_right(case, monkeypatch):
    monkeypatch.setattr(work, "here", work.Here("cpu", True))
    problem = Problem(case, together=False)
    problem.forward()
    problem.backward()
    truth, plain = problem.by_torch(torch.float64), problem.by_torch(problem.dtype)
    assert_within_policy(problem.y, plain["y"], truth["y"], "y")
    assert_within_policy(problem.d_x, plain["d_x"], truth["d_x"], "d x")
