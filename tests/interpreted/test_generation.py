"""What is generated from a step, against the step: values and every gradient, on tiles that are wider than H."""

import pytest
import torch
import triton

from seqnets.kernels.triton.module import generate
from tests.cells import zoo
from tests.kernels import tile
from tests.kernels.steps import CELLS, ROWS, TILES, cell_of
from tests.tolerance import assert_within_policy

B = 3
INPUTS = {
    "usual": lambda x: x,
    "tiny": lambda x: 1e-6 * x,
    "tied": lambda x: x.round(),  # zeros, ones, and equal values in a row
    "saturated": lambda x: torch.where(x.abs() > 0.5, 100 * x.sign(), x),
}


@pytest.mark.parametrize("name", TILES)
def test_a_step_and_its_gradient(name):
    cell = cell_of(TILES[name])
    check(cell)
    assert generate(cell).reduces_rows == (name in ROWS)


@pytest.mark.parametrize("cell", [*zoo.ALL.values(), *CELLS.values()], ids=lambda cell: cell.name)
def test_a_cell_and_its_gradient(cell):
    check(cell)


def check(cell):
    for H in (5, 1):  # generated once: H cannot be in it
        usual = draw(cell, H)
        kinds = [[[change(t) for t in group] for group in usual[:3]] + usual[3:] for change in INPUTS.values()]
        together = [[torch.cat(parts) for parts in zip(*groups, strict=True)] for groups in zip(*kinds, strict=True)]
        together[PARAMS] = usual[PARAMS]
        for dtype in (torch.float32, torch.float64):
            tiles = by_triton(cell, together, dtype)
            for k, (kind, arguments) in enumerate(zip(INPUTS, kinds, strict=True)):
                # in float64 the oracle is no better than what it judges: good enough where nothing cancels
                if kind == "saturated" and dtype == torch.float64:
                    continue
                actual = {name: values[k * B : (k + 1) * B] for name, values in tiles.items()}
                actual |= {f"d_{name}": actual[f"d_{name}"].sum(0) for name in cell.params}
                expected, oracle = (by_autograd(cell, arguments, d) for d in (dtype, torch.float64))
                compare(actual, expected, oracle, f"{kind} inputs, H={H}, {dtype}")


def compare(actual, expected, oracle, about):
    for what, value in actual.items():
        known = expected[what].isfinite() & oracle[what].isfinite()
        same = torch.equal(value[~known].nan_to_num(12.5), expected[what][~known].nan_to_num(12.5))
        assert same, f"{what} of {about}: {value[~known]} where PyTorch has {expected[what][~known]}"
        assert_within_policy(value[known], expected[what][known], oracle[what][known], f"{what} of {about}")


PARAMS = 3  # among the arguments


def draw(cell, H):
    """x, r, state, params, masks and the gradients of the new state, of float32 numbers: the same for every dtype."""
    x, r, state, d_new = (
        [torch.randn(B, H).double() for _ in range(n)] for n in (cell.gates, cell.gates, *[len(cell.states)] * 2)
    )
    params = [torch.rand(H).double() for _ in cell.params]
    masks = [(torch.rand(B, H) > 0.3).double() * 1.5 for _ in cell.masks]
    return [x, r, state, params, masks, d_new]


def by_autograd(cell, arguments, dtype):
    *groups, d_new = ([tensor.to(dtype, copy=True) for tensor in group] for group in arguments)
    inputs = [tensor.requires_grad_() for group in groups[:4] for tensor in group]
    new = cell(*groups)
    total = sum((value * d).sum() for value, d in zip(new, d_new, strict=True)) + 0 * inputs[0].sum()
    gradients = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
    return named(cell, [value.detach() for value in new], gradients)


def by_triton(cell, arguments, dtype):
    generated, (rows, H) = generate(cell), arguments[0][0].shape
    groups = [tuple(tensor.to(dtype) for tensor in group) for group in arguments]
    results = [tuple(torch.full((rows, H), float("nan"), dtype=dtype) for _ in g) for g in [groups[-1], *groups[:4]]]
    sizes = {"BLOCK_B": triton.next_power_of_2(rows + 1), "BLOCK_H": triton.next_power_of_2(H + 1)}
    functions = {"STEP": generated.step, "GRADIENT": generated.gradient}
    tile.step_and_gradient[(1,)](*groups, *results, rows, H, **functions, **sizes)
    new, *gradients = results
    return named(cell, new, [gradient for group in gradients for gradient in group])


def named(cell, new, gradients):
    gates = [f"{group}[{k}]" for group in "xr" for k in range(cell.gates)]
    names = [*cell.states, *(f"d_{name}" for name in (*gates, *cell.states, *cell.params))]
    return dict(zip(names, [*new, *gradients], strict=True))
