"""The tolerance policy of the library (`seqnets.tolerance`), as an assertion; and that of equal bits."""

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
        f"worst at {list(place)} of {list(actual.shape)}: {values}; {int((errors > allowed).sum())} of "
        f"{errors.numel()} are beyond, {int(actual.isnan().sum())} are nan (what kernels leave unwritten is nan here)"
    )


def assert_same_bits(found, expected):
    """Tensors by name, each with the values of its other, and none nan."""
    assert found.keys() == expected.keys(), f"{list(found)}, expected {list(expected)}"
    for what, tensor in found.items():
        other = expected[what]
        assert tensor.shape == other.shape, f"{what}: shape {tuple(tensor.shape)}, expected {tuple(other.shape)}"
        assert torch.equal(tensor, other), f"{what}: {_first_difference(tensor, other)}"


def _first_difference(found, expected):
    different = (found != expected).nonzero().tolist()
    place = tuple(different[0])
    return (
        f"{len(different)} of {found.numel()} differ, first at {list(place)} of {list(found.shape)}: "
        f"found {found[place].item():.9g}, expected {expected[place].item():.9g}; {int(found.isnan().sum())} are nan"
    )
