"""That the tests of this folder are interpreted, and that what goes wrong there is seen here."""

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction


@triton.jit
def _double(x, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(x + at, 2 * tl.load(x + at, at < n), at < n)


def test_kernels_run_on_the_cpu():
    x = torch.tensor([1.0, 2.0, 3.0])
    assert isinstance(_double, InterpretedFunction)
    _double[(1,)](x, 2, BLOCK=4)
    assert x.tolist() == [2, 4, 3]


@pytest.mark.xfail(strict=True, raises=AssertionError)
def test_a_failure_is_a_failure():
    raise AssertionError("expected")
