"""Python threads that define, trace, build and first call cells at the same time."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import seqnets
from seqnets.cells.records import record
from seqnets.cells.registry import find_cell
from seqnets.kernels.cpp.printed import printed
from seqnets.kernels.triton.module import generate
from seqnets.once import exclusive, on_behalf, once

THREADS = 4


@pytest.fixture(autouse=True)
def _often():
    """Threads take turns so often that they meet."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(function, count=THREADS):
    """Call the function in so many threads, which start it together, and return the results."""
    barrier = threading.Barrier(count)

    def run(number):
        barrier.wait()
        return function(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def new_cell(number=0):
    @seqnets.cell(gates=2, states=("h", "trace"), params={"decay": 0.9})
    def fresh(x, r, state, params):
        trace = params.decay * state.trace + (x[0] + r[0]).tanh() * (number + 1)
        return (x[1] + r[1]).sigmoid() * trace, trace

    return fresh


@pytest.mark.parametrize("build", [printed, generate], ids=["for C++", "for Triton"])
def test_a_cell_is_traced_once_whoever_asks(build):
    for number in range(8):
        cell = new_cell(number)
        first, *others = at_once(lambda _, cell=cell: build(cell))
        assert all(other is first for other in others)


def test_different_cells_are_traced_one_after_the_other():
    cells = [new_cell(number) for number in range(8)]
    found = at_once(lambda number: printed(cells[number]), len(cells))
    assert found == [printed(new_cell(number)) for number in range(8)]


def test_layers_of_a_new_cell_are_first_called_in_threads():
    cell, x = new_cell(), torch.randn(6, 3, 5, dtype=torch.float64)
    layers = [seqnets.Recurrent(cell, 5, 7, dtype=torch.float64) for _ in range(THREADS)]

    def gradients(layer):
        y = layer(x)[0]
        return [y.detach(), *torch.autograd.grad(y.square().sum(), list(layer.parameters()))]

    found = at_once(lambda number: gradients(layers[number]))
    assert seqnets.explain(layers[0], x).backend == "cpp"
    with seqnets.use_backend("reference"):
        torch.testing.assert_close(found, [gradients(layer) for layer in layers])


def test_cells_defined_in_threads_are_told_apart():
    for _ in range(20):
        cells = at_once(new_cell)
        assert len({cell.key for cell in cells}) == THREADS
        assert all(find_cell(cell.key) is cell for cell in cells)
        assert len({cell.State for cell in cells}) == 1  # states are pickled by their names


def test_a_record_is_one_class_for_all_threads():
    for number in range(20):
        assert len(set(at_once(lambda _, name=f"Record{number}": record(name, ("h", "c"))))) == 1


def test_what_runs_once_is_kept_unless_it_failed():
    calls = []

    @once
    def halve(number):
        calls.append(number)
        if number % 2:
            raise ValueError(number)
        return number // 2

    assert at_once(lambda _: halve(6)) == [3] * THREADS and calls == [6]
    for _ in range(2):
        with pytest.raises(ValueError, match="7"):
            halve(7)
    assert calls == [6, 7, 7]
    halve.cache_clear()
    assert halve(6) == 3 and calls == [6, 7, 7, 6]


def test_a_thread_works_on_behalf_of_the_one_that_waits_for_it():
    entered = []

    def work():
        with exclusive():
            entered.append(threading.current_thread())

    with exclusive():
        helper = threading.Thread(target=on_behalf(work))
        stranger = threading.Thread(target=work)
        for thread in (helper, stranger):
            thread.start()
        helper.join(60)
        assert entered == [helper]
    stranger.join(60)
    assert entered == [helper, stranger]
