"""The tolerance policy of the library (`seqnets.tolerance`), as an assertion."""

import torch
from torch import Tensor

from seqnets.tolerance import verdict


def assert_within_policy(actual, baseline, oracle, what, tf32=False):
    """`actual` against `oracle` (float64), judged by how far `baseline` (PyTorch, same dtype as actual) is from it."""
    assert actual.shape == oracle.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(oracle.shape)}"
    assert actual.dtype == baseline.dtype, f"{what}: dtype {actual.dtype}, expected {baseline.dtype}"
    error, allowed = verdict(actual, baseline, oracle, tf32)
    assert error <= allowed, (
        f"{what}: error {error:.3g} beyond the allowed {allowed:.3g}{_where(actual, baseline, oracle)}"
    )


def _where(actual: Tensor, baseline: Tensor, oracle: Tensor) -> str:
    """The worst entry, and how many are no numbers, as buffers are that nothing was written to."""
    off = (actual.double() - oracle).abs().nan_to_num(nan=float("inf"))
    index = tuple(int(k) for k in torch.unravel_index(off.argmax(), off.shape))
    values = ", ".join(
        f"{name} {tensor[index].item():.6g}"
        for name, tensor in (("is", actual), ("PyTorch's", baseline), ("float64", oracle))
    )
    return f"; at {index} of {tuple(actual.shape)}: {values}; {int(actual.isnan().sum())} of {actual.numel()} entries are nan"
