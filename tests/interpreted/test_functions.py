"""The functions that generated steps call, entry by entry: a large value hides no error of a small one."""

import math

import pytest
import torch
import triton
import triton.language as tl

from seqnets.kernels.triton import math as kernel_math

N = 4096
BOTH = (torch.float32, torch.float64)
SPECIAL = [0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 100.0, -100.0, 1e-30]
# every magnitude from 1e-20 to 100, of both signs, and around the points where the formulas change
WIDE = torch.cat([
    torch.logspace(-20, 2, 1500, dtype=torch.float64), -torch.logspace(-20, 2, 1500, dtype=torch.float64),
    torch.linspace(-1.1, 1.1, N - 3000 - len(SPECIAL), dtype=torch.float64), torch.tensor(SPECIAL, dtype=torch.float64),
])  # fmt: skip


@triton.jit
def _unary(x, out, F: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, F(tl.load(x + at)))


@triton.jit
def _binary(x, y, out, F: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, F(tl.load(x + at), tl.load(y + at)))


@triton.jit
def _row(x, out, H, F: tl.constexpr, BLOCK: tl.constexpr):
    rows, units = tl.arange(0, 4)[:, None], tl.arange(0, BLOCK)[None, :]
    cols = units < H
    tl.store(out + rows, F(tl.load(x + rows * H + units, mask=cols, other=float("nan")), cols))


def ulps(actual, oracle):
    """The largest distance from the oracle in units of the last place; equal where either is not finite."""
    expected = oracle.to(actual.dtype)
    finite = expected.isfinite()
    assert torch.equal(actual[~finite].nan_to_num(12.5), expected[~finite].nan_to_num(12.5))
    spacing = torch.nextafter(expected.abs(), torch.full_like(expected, math.inf)) - expected.abs()
    distance = (actual.double() - oracle).abs() / spacing.double()
    return distance[finite].max().item()


@pytest.mark.parametrize("dtype", BOTH, ids=str)
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "log1p", "expm1", "sign"])
def test_accurate_to_a_few_units_in_the_last_place(name, dtype):
    x = WIDE.to(dtype)
    out = torch.full_like(x, math.nan)
    _unary[(1,)](x, out, F=getattr(kernel_math, name), N=N)
    oracle = getattr(torch, name)(x.double())
    normal = (oracle.abs() >= torch.finfo(dtype).tiny) | (oracle == 0) | oracle.isnan()
    assert ulps(out[normal], oracle[normal]) <= 4


@pytest.mark.parametrize("dtype", BOTH, ids=str)
def test_power_loses_no_more_than_its_exponential_must(dtype):
    bases = torch.cat([torch.linspace(-4, 4, 64), torch.tensor(SPECIAL)]).double().nan_to_num(2.0, 3.0, -3.0)
    exponents = torch.tensor([-3, -2, -1, -0.5, 0, 0.3, 0.5, 1, 2, 3, 5.5, 12]).double()
    x, y = (grid.flatten().to(dtype) for grid in torch.meshgrid(bases, exponents, indexing="ij"))
    x, y = (torch.nn.functional.pad(tensor, (0, 1024 - len(tensor)), value=1.0) for tensor in (x, y))
    out = torch.full_like(x, math.nan)
    _binary[(1,)](x, y, out, F=kernel_math.power, N=1024)
    oracle = x.double() ** y.double()
    usual = (x.abs() < 10) & (x.abs() > 0.1)
    assert ulps(out[usual], oracle[usual]) <= 20  # y·log x, up to 17, has an error that the exponential passes on
    assert torch.equal(out.isnan(), oracle.isnan())
    assert torch.equal(out.isinf(), oracle.to(dtype).isinf())


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_of_two_as_torch_chooses(name):
    x, y = (g.flatten() for g in torch.meshgrid(torch.tensor(SPECIAL[:8]), torch.tensor(SPECIAL[:8]), indexing="ij"))
    out = torch.full_like(x, 7.0)
    _binary[(1,)](x, y, out, F=getattr(kernel_math, name), N=64)
    assert torch.equal(out.nan_to_num(12.5), getattr(torch, name)(x, y).nan_to_num(12.5))


@pytest.mark.parametrize("H", [1, 5, 16])
def test_rows_end_at_the_last_unit(H):
    x = torch.randn(4, H, dtype=torch.float64) - 10  # so that a zero, or a NaN, beyond H would win
    out = torch.empty(4, 1, dtype=torch.float64)
    _row[(1,)](x, out, H, F=kernel_math.row_sum, BLOCK=16)
    torch.testing.assert_close(out, x.sum(-1, keepdim=True))
    _row[(1,)](x, out, H, F=kernel_math.row_max, BLOCK=16)
    assert torch.equal(out, x.amax(-1, keepdim=True))
