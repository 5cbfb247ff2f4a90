"""The functions that steps call, against float64, over all that they can be given."""

import ctypes
import math

import pytest
import torch

from seqnets.kernels.cpp.build import compiled

FUNCTIONS = (
    "exp",
    "sigmoid",
    "tanh",
    "log",
    "log1p",
    "expm1",
    "sqrt",
    "erf",
    "abs",
    "sign",
    "floor",
    "rsqrt",
    "exp2",
    "sin",
    "cos",
)
SOURCE = """
using real = {real};
#define STORED_BFLOAT16 0
#include "vector.hpp"
extern "C" {{
{functions}
}}
"""
EACH = """void each_{name}(const real* x, real* y, int64_t n) {{
    for (int64_t k = 0; k < n; k += L) \
store(y + k, {name}(load(x + k, int(n - k < L ? n - k : L))), int(n - k < L ? n - k : L));
}}"""
ULPS = {"exp": 2, "sigmoid": 4, "tanh": 4}  # the others are the C library's
REFERENCE = {"sigmoid": torch.sigmoid, "rsqrt": torch.rsqrt, "sign": torch.sign}


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=str)
def apply(request):
    real = {torch.float32: "float", torch.float64: "double"}[request.param]
    source = SOURCE.format(real=real, functions="\n".join(EACH.format(name=name) for name in FUNCTIONS))
    library, _ = compiled("functions", source)

    def run(name, x):
        x = x.to(request.param)
        y = torch.empty_like(x)
        getattr(library, f"each_{name}")(
            ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()), ctypes.c_int64(x.numel())
        )
        return x, y

    return run


def ulps(y, truth):
    """The error in units of the last place of the result, subnormal ones included."""
    spacing = (
        torch.nextafter(truth.to(y.dtype).abs(), torch.tensor(math.inf, dtype=y.dtype)).double()
        - truth.to(y.dtype).abs().double()
    )
    return ((y.double() - truth).abs() / spacing).max().item()


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh"])
def test_a_few_units_in_the_last_place_over_the_whole_range(name, apply):
    tiny = torch.logspace(-300, -1, 20001, dtype=torch.float64)
    wide = torch.linspace(-120, 120, 200001, dtype=torch.float64)
    near = torch.linspace(-2, 2, 200001, dtype=torch.float64)
    x, y = apply(name, torch.cat([wide, near, tiny, -tiny]))
    if x.dtype is torch.float64:  # where nothing better is at hand: torch's own
        assert ulps(y, getattr(torch, name)(x)) <= ULPS[name] + 2
        return
    truth = getattr(torch, name)(x.double())
    normal = (truth.abs() >= torch.finfo(x.dtype).tiny) & (truth.abs() <= torch.finfo(x.dtype).max)
    assert ulps(y[normal], truth[normal]) <= ULPS[name]
    assert ((y.double() - truth)[~normal & (truth.abs() < 1)].abs() <= torch.finfo(x.dtype).tiny).all()


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh"])
def test_limits_and_nan(name, apply):
    x, y = apply(name, torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 1e30, -1e30]))
    torch.testing.assert_close(y, getattr(torch, name)(x), rtol=0, atol=torch.finfo(x.dtype).tiny, equal_nan=True)
    if name == "tanh":
        assert torch.equal(y.signbit()[3:5], x.signbit()[3:5])


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ULPS])
def test_the_others_are_those_of_torch(name, apply):
    x, y = apply(
        name, torch.cat([torch.linspace(-3, 3, 1003, dtype=torch.float64), torch.tensor([math.nan, math.inf, 0.0])])
    )
    torch.testing.assert_close(y, getattr(torch, name)(x), equal_nan=True)
