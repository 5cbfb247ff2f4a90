"""The one tolerance policy: an error against float64 of at most twice that of PyTorch in the same dtype, plus a floor.

The floor allows for another order of summation where PyTorch's own error happens to be next to nothing. It is
relative to the largest entry of the oracle.
"""

import torch

FLOOR = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def assert_within_policy(actual, baseline, oracle, what):
    """`actual` against `oracle` (float64), judged by how far `baseline` (PyTorch, same dtype as actual) is from it."""
    assert actual.shape == oracle.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(oracle.shape)}"
    assert actual.dtype == baseline.dtype, f"{what}: dtype {actual.dtype}, expected {baseline.dtype}"
    if not oracle.numel():
        return
    assert torch.isfinite(actual).all(), f"{what}: not finite"
    error = (actual.double() - oracle).abs().max().item()
    allowed = 2 * (baseline.double() - oracle).abs().max().item() + FLOOR[actual.dtype] * oracle.abs().max().item()
    assert error <= allowed, f"{what}: error {error:.3g} beyond the allowed {allowed:.3g}"
