"""Defines the functions that generated steps call where Triton has none, or none accurate in float32 and float64."""

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """Compute tanh without the nan of ``(1 - e^-2x) / (1 + e^-2x)`` for large arguments, where it saturates.

    Near 0 it is a rational approximation in float64 and a polynomial in float32 (S. L. Moshier, Cephes).
    """
    magnitude = tl.abs(x)
    square = x * x
    if x.dtype == tl.float64:
        p = (-0.964399179425052238628 * square - 99.2877231001918586564) * square - 1614.68768441708447952
        q = ((square + 112.811678491632931402) * square + 2235.48839060100448583) * square + 4844.06305325125486048
        near = x + x * square * (p / q)
    else:
        p = (-5.70498872745e-3 * square + 2.06390887954e-2) * square - 5.37397155531e-2
        near = x + x * square * ((p * square + 1.33314422036e-1) * square - 3.33332819422e-1)
    far = 1.0 - 2.0 / (1.0 + tl.exp(2.0 * magnitude))
    return tl.where(magnitude < 0.625, near, tl.where(x < 0, -far, far))


@triton.jit
def log1p(x):
    """Compute ``log(1 + x)`` by W. Kahan's method, which divides out the rounding error of ``1 + x``."""
    rounded = 1.0 + x
    finite = (rounded != 1.0) & (rounded < float("inf"))
    safe = tl.where(finite, rounded, 2.0)
    return tl.where(rounded == 1.0, x, tl.where(finite, tl.log(safe) * (x / (safe - 1.0)), tl.log(rounded)))


@triton.jit
def expm1(x):
    """Compute ``e^x - 1``, by W. Kahan's method for arguments where the difference loses digits."""
    power = tl.exp(x)
    near = (tl.abs(x) < 1.0) & (power != 1.0)
    safe = tl.where(near, power, 2.0)
    return tl.where(near, (safe - 1.0) * (x / tl.log(safe)), tl.where(power == 1.0, x, power - 1.0))


@triton.jit
def sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, tl.zeros_like(x)))


@triton.jit
def power(x, y):
    """Compute ``x ** y``, signed for negative bases, and nan where there is no real value. `x` may be a number."""
    x = x + tl.zeros_like(y)
    magnitude = tl.exp(y * tl.log(tl.abs(x)))
    half = 0.5 * y
    odd = tl.floor(half) != half
    whole = tl.floor(y) == y
    signed = tl.where(whole, tl.where(odd & (x < 0), -magnitude, magnitude), float("nan"))
    return tl.where(y == 0, 1.0, tl.where(x < 0, signed, magnitude))


@triton.jit
def maximum(x, y):
    """Return the larger of two values, or nan where either is nan, as torch does."""
    return tl.where((x > y) | (x != x), x, y)


@triton.jit
def minimum(x, y):
    return tl.where((x < y) | (x != x), x, y)


@triton.jit
def row_sum(x, cols):
    """Sum each row, as ``(B, 1)``, over the units that exist: the columns where `cols` is true."""
    return tl.sum(tl.where(cols, x, 0.0), axis=1, keep_dims=True)


@triton.jit
def row_max(x, cols):
    return tl.max(tl.where(cols, x, float("-inf")), axis=1, keep_dims=True)
