"""The stub in place of a GPU, and comparisons that judge no numbers, as the stub computes none."""

import torch

from benchmarks.prove import stub_gpu
from seqnets.kernels.triton import first_use
from tests import tolerance


def begin():
    """Rehearse, for the rest of this process. Shapes, dtypes and names are still judged."""
    stub_gpu.install()
    tolerance.verdict = lambda actual, baseline, oracle, tf32=False: (0.0, 0.0)
    torch.equal = lambda one, other: one.shape == other.shape and one.dtype is other.dtype
    torch.testing.assert_close = lambda actual, expected, **more: None
    judge = first_use.worst_error
    first_use.worst_error = lambda *given: judge(*given)._replace(error=0.0)


def one_of_each(items):
    """The first case of each test function."""
    return list({item.function: item for item in reversed(items)}.values())[::-1]
