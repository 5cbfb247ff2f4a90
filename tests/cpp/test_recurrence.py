"""The C++ kernels' numbers: outputs and every gradient against the reference, by the tolerance policy."""

import pytest
import torch

import seqnets
from seqnets.cells import CELLS as BUILT_IN
from seqnets.kernels.cpp import launch
from tests import recurrences
from tests.recurrences import BFLOAT, DOUBLE, GRU, LSTM, TWO_WAY, Case, by_kernels, in_cpp, masked, normed, traced


def cases(given):
    return pytest.mark.parametrize("case", in_cpp(given), ids=str)


LONG_ROWS = [  # several vectors, the last of them not full; rows beyond a tile of sums, tasks beyond the threads
    Case(cell, T=3, B=B, H=H, dtype=dtype)
    for cell, B, H, dtype in (
        (LSTM, 70, 40, torch.float32), (GRU, 9, 100, torch.float32), (LSTM, 7, 130, DOUBLE),
        (normed, 5, 70, torch.float32), (masked, 33, 48, torch.float32), (traced, 3, 257, torch.float32),
        (normed, 6, 33, DOUBLE), (GRU, 19, 70, BFLOAT),
    )
]  # fmt: skip
ONE_STEP = [  # of few rows, by weights as they lie; and of more
    Case(cell, T=1, B=B, H=H, dtype=dtype, lengths=lengths, options=options)
    for cell, B, H, dtype, lengths, options in (
        (LSTM, 1, 40, torch.float32, (), {}), (GRU, 4, 60, torch.float32, (1, 0, 1, 0), TWO_WAY | {"num_heads": 3}),
        (masked, 3, 20, BFLOAT, (0, 1, 1), {"bias": False}), (normed, 2, 33, DOUBLE, (), TWO_WAY),
        (LSTM, 5, 7, torch.float32, (), {}),
    )
]  # fmt: skip
HEADS = [
    Case(cell, H=60, options={"num_heads": 3} | options)
    for cell in (LSTM, GRU, normed)
    for options in ({}, TWO_WAY | {"bias": False})
]


@cases(recurrences.EVERY_CELL)
def test_every_cell_and_each_output(case):
    recurrences.check(case)


@pytest.mark.sampled(4)
@cases([c for c in recurrences.IN_HALF if c.cell is not recurrences.RELU])  # whose kink rounding may cross
def test_every_cell_in_half_precision(case):
    recurrences.check(case)


@cases(recurrences.IN_DOUBLE)
def test_double_precision(case):
    recurrences.check(case)


@cases(recurrences.ODD_SHAPES)
def test_odd_shapes(case):
    recurrences.check(case)


@cases(LONG_ROWS + HEADS)
def test_long_rows_and_heads(case):
    recurrences.check(case)


@cases(
    [
        Case(LSTM, T=500, B=32, H=20),
        Case(GRU, T=500, B=32, H=20),
        Case(LSTM, T=30, B=8, H=1000),
    ]
)
def test_long_sums_are_as_exact_as_those_of_torch(case):
    recurrences.check(case)


@cases(ONE_STEP)
def test_one_step(case):
    recurrences.check(case)


@cases(recurrences.SATURATED)
def test_saturated_gates(case):
    recurrences.check(case)


@cases(recurrences.RAGGED)
def test_ragged_batches(case):
    recurrences.check(case)


@cases(recurrences.OPTIONS)
def test_options(case):
    recurrences.check(case)


@cases(recurrences.EMPTY)
def test_empty_input(case):
    recurrences.check(case)


@cases(
    [
        *recurrences.REPEATED,
        Case(LSTM, B=40, H=70, options=TWO_WAY),
        Case(normed, B=40, H=70, lengths=tuple(range(5)) * 8),
        # few rows, whose units the threads share
        *(
            Case(cell, B=B, H=H, options=options)
            for cell, B, H, options in (
                (LSTM, 1, 70, {}),
                (GRU, 2, 130, TWO_WAY),
                (traced, 1, 257, {}),
                (masked, 3, 150, {}),
                (normed, 1, 150, {}),
                (LSTM, 1, 150, {"num_heads": 3}),
            )
        ),
        Case(GRU, B=2, H=150, lengths=(3, 0), dtype=BFLOAT),
    ]
)
def test_the_same_input_gives_the_same_bits_on_any_number_of_threads(case):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 5, 2):
            torch.set_num_threads(threads)
            found.append(by_kernels(case))
    finally:
        torch.set_num_threads(before)
    for what, tensor in found[0].items():
        assert all(torch.equal(tensor, other[what]) for other in found[1:]), what


@pytest.mark.parametrize("B", [1, 7, 8, 9, 64, 65, 200])
@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("threads", [1, 2, 5, 64])
def test_every_row_has_a_task_and_every_thread_too_where_there_are_rows(threads, D, B):
    blocks = launch.count_blocks(B, D, threads, row_bytes=1024)
    assert 1 <= blocks <= B
    assert -(-B // blocks) <= launch.ROWS
    assert D * blocks >= min(threads, D * B) or D * blocks >= 4 * threads


def test_what_kernels_leave_unwritten_is_seen(monkeypatch):
    layer = seqnets.Recurrent(BUILT_IN["gru"], 3, 4, backend="cpp")
    monkeypatch.setattr(launch._library(layer.cell, torch.float32).call, "forward", lambda given: None)
    with recurrences.poisoned_allocations():
        y, _ = layer(torch.randn(2, 2, 3))
    assert y.isnan().all()
