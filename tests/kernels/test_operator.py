"""What the operators say of their results without running."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from seqnets.kernels.triton.operator import recurrence, recurrence_backward
from tests.recurrences import LSTM


def operands(T, B, D=2, N=2, U=3):
    Q, empty = 4 * U, torch.empty
    return (
        empty(T, B, D, N, Q), [empty(D, B, N, U), empty(D, B, N, U)], empty(D, N, U, Q), empty(D, N, Q), [], [],
        torch.zeros(B, dtype=torch.int64),
    )  # fmt: skip


@pytest.mark.parametrize(("keep_states", "keep_r", "outputs"), [(False, False, 3), (True, False, 4), (True, True, 5)])
@pytest.mark.parametrize("where", [FakeTensorMode, lambda: torch.device("meta")], ids=["fake", "meta"])
def test_shapes_are_known_without_running(where, keep_states, keep_r, outputs):
    with where():
        given = operands(T=5, B=4)
        found = recurrence(*given, LSTM.key, keep_states, keep_r)
        shapes = [(5, 4, 2, 2, 3)] * (1 + keep_states) + [(2, 4, 2, 3)] * 2 + [(5, 4, 2, 2, 12)] * keep_r
        assert [tuple(tensor.shape) for tensor in found] == shapes
        assert len(found) == outputs
        gradients = recurrence_backward(*given, found[:2], None, [found[0], None], [None, None], LSTM.key)
        x, state, weight, bias, *_ = given
        assert [g.shape for g in gradients] == [t.shape for t in (x, *state, weight, bias)]
