"""The tolerance policy of the library (`seqnets.tolerance`), as an assertion."""

from seqnets.tolerance import verdict


def assert_within_policy(actual, baseline, oracle, what, tf32=False):
    """`actual` against `oracle` (float64), judged by how far `baseline` (PyTorch, same dtype as actual) is from it."""
    assert actual.shape == oracle.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(oracle.shape)}"
    assert actual.dtype == baseline.dtype, f"{what}: dtype {actual.dtype}, expected {baseline.dtype}"
    error, allowed = verdict(actual, baseline, oracle, tf32)
    assert error <= allowed, f"{what}: error {error:.3g} beyond the allowed {allowed:.3g}"
