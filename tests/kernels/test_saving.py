"""Tests that a step saves little for its gradient: what separates it from x and r, and need not be computed again."""

import pytest
import torch

import seqnets
from seqnets.cells import CELLS
from seqnets.kernels.ir.partition import split
from seqnets.kernels.ir.tracing import trace
from tests.cells import zoo
from tests.recurrences import masked, nbrc, normed, traced


def saved(cell):
    return [node.op for node in split(trace(cell)).forward.outputs["saved"]]


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("rnn_tanh", []),  # the gradient of tanh follows from the state
        ("rnn_relu", []),
        ("lstm", ["sigmoid", "sigmoid", "sigmoid", "tanh"]),
        ("gru", ["input", "sigmoid", "sigmoid", "tanh"]),  # r_n meets the reset gate
    ],
)
def test_of_built_in_cells_the_activated_gates(name, operations):
    assert sorted(saved(CELLS[name])) == operations


@seqnets.cell(gates=1, states=("h",))
def scaled(x, r, state):
    """Of the norm one number per row is kept; of the rest a value per unit."""
    a = x[0] + r[0]
    return a / (1 + a.square().sum(-1, keepdim=True).sqrt())


def test_a_value_of_a_row_costs_next_to_nothing():
    nodes = split(trace(scaled)).forward.outputs["saved"]
    assert sum(node.columns for node in nodes) <= 1


@pytest.mark.parametrize("cell", [*zoo.ALL.values(), traced, normed, masked, nbrc, scaled], ids=lambda cell: cell.name)
def test_the_gradient_reads_nothing_of_x_and_r(cell):
    backward = split(trace(cell)).backward
    given = {node for group in backward.inputs.values() for node in group}
    assert set(backward.inputs).isdisjoint({"x", "r"})
    assert {node for node in backward.order() if node.op == "input"} <= given


def test_a_step_that_is_linear_saves_nothing():
    @seqnets.cell(gates=1, states=("h",))
    def linear(x, r, state):
        return x[0] + 0.5 * r[0] + torch.where(state.h > 0, state.h, 0)

    assert saved(linear) == []
