"""The tolerance policy of the library (`seqnets.tolerance`), as an assertion."""

import torch

from seqnets.tolerance import verdict


def assert_within_policy(actual, baseline, oracle, what, tf32=False):
    """`actual` against `oracle` (float64), judged by how far `baseline` (PyTorch, same dtype as actual) is from it."""
    assert actual.shape == oracle.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(oracle.shape)}"
    assert actual.dtype == baseline.dtype, f"{what}: dtype {actual.dtype}, expected {baseline.dtype}"
    error, allowed = verdict(actual, baseline, oracle, tf32)
    assert error <= allowed, (
        f"{what}: error {error:.3g} beyond the allowed {allowed:.3g}; {_where(actual, baseline, oracle, allowed)}"
    )


def _where(actual, baseline, oracle, allowed):
    """The place of the largest error, and how much is wrong: a row, a step or all say which mistake it is."""
    errors = (actual.double() - oracle).abs().nan_to_num(nan=float("inf"))
    place = tuple(int(k) for k in torch.unravel_index(errors.argmax(), errors.shape))
    values = ", ".join(
        f"{name} {tensor[place].item():.6g}"
        for name, tensor in (("found", actual), ("PyTorch", baseline), ("float64", oracle))
    )
    return (
        f"worst at {list(place)} of {list(actual.shape)}: {values}; {int((errors > allowed).sum())} of {errors.numel()} are beyond, "
        f"{int(actual.isnan().sum())} are nan (what kernels leave unwritten is nan here)"
    )
