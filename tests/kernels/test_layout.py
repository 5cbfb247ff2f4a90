"""How gates lie where kernels read them."""

import pytest
import torch

from seqnets.kernels.triton.layout import (
    first_steps,
    pack_rows,
    pack_weight,
    pack_widths,
    set_first_steps,
    unpack_columns,
)


@pytest.mark.parametrize(
    ("gates", "widths"), [(1, (1,)), (2, (2,)), (3, (2, 1)), (4, (4,)), (5, (4, 1)), (7, (4, 2, 1)), (8, (4, 4))]
)
def test_gates_are_packed_side_by_side_and_unpacked(gates, widths):
    assert pack_widths(gates) == widths
    N, U = 2, 3
    rows = torch.arange(gates * N * U, dtype=torch.float64).requires_grad_()  # in torch's order
    packed = pack_rows(rows, gates, N)
    assert packed.shape == (N, gates * U)
    assert torch.equal(unpack_columns(packed, gates), rows)
    first = 0
    for width in widths:
        for n in range(N):
            pack = packed[n, first * U : (first + width) * U].view(U, width)
            assert torch.equal(pack, rows.view(gates, N, U)[first : first + width, n].T)
        first += width
    assert torch.autograd.gradcheck(lambda rows: pack_rows(rows, gates, N), rows)
    weight = torch.randn(gates * N * U, U, dtype=torch.float64)
    assert torch.equal(pack_weight(weight, gates, N), pack_rows(weight, gates, N).transpose(1, 2))


@pytest.mark.parametrize("lengths", [None, torch.tensor([9, 0, 2])], ids=["full", "ragged"])
@pytest.mark.parametrize("D", [1, 2])
def test_the_reverse_direction_begins_at_each_rows_end(D, lengths):
    """Lengths on a GPU are not checked: one beyond T must not reach beyond the memory."""
    every = torch.randn(4, 3, D, 5)
    ends = [3, 3, 3] if lengths is None else [3, 0, 1]
    first = first_steps(every, lengths)
    for row, end in enumerate(ends):
        assert torch.equal(first[0, row], every[0, row, 0])
        if D == 2:
            assert torch.equal(first[1, row], every[end, row, 1])
    written = torch.zeros_like(every)
    set_first_steps(written, first, lengths)
    assert torch.equal(first_steps(written, lengths), first)
    assert written.count_nonzero() == first.numel()
