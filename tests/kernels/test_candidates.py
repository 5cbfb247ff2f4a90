"""The plans among which measurement may choose: they agree with the capacity rule, and they compile within it."""

import itertools

import pytest
import torch
from triton.backends.compiler import GPUTarget

from seqnets.cells import gru, lstm
from seqnets.kernels.triton import launch
from seqnets.kernels.triton.ahead_of_time import compile_ahead
from seqnets.kernels.triton.module import generate
from seqnets.kernels.triton.planning.arch import ARCHS
from seqnets.kernels.triton.planning.candidates import candidates
from seqnets.kernels.triton.planning.capacity import Demand, Refusal, choose, misfit
from seqnets.kernels.triton.planning.select import demand_of

DTYPES = ((torch.bfloat16, "ieee"), (torch.float32, "tf32"), (torch.float32, "ieee"), (torch.float64, "ieee"))
CELLS = {  # gates, states, parameters, masks, reduces_rows, additive
    "rnn": (1, 1, 0, 0, False, True),
    "gru": (3, 1, 0, 0, False, False),
    "lstm": (4, 2, 0, 0, False, True),
    "normed": (4, 2, 2, 1, True, True),
}
DEMANDS = [
    Demand(*cell, units, heads, dtype, precision, backward)
    for cell, units, heads, (dtype, precision), backward in itertools.product(
        CELLS.values(), (1, 70, 128, 1024), (1, 4), DTYPES, (False, True)
    )
]


@pytest.mark.parametrize("arch", ARCHS.values(), ids=ARCHS)
def test_they_agree_with_the_rule(arch):
    for demand in DEMANDS:
        found, default = candidates(demand, arch), choose(demand, arch)
        assert found[:1] == ([] if isinstance(default, Refusal) else [default])
        assert len(set(found)) == len(found)
        for schedule in ("resident", "tiled") if found else ():
            rule = choose(demand, arch, schedule)
            own = [plan for plan in found if plan.schedule == schedule]
            assert not own if isinstance(rule, Refusal) else rule in own
        for plan in found:
            assert misfit(demand, arch, plan) is None and plan.precision == demand.precision
            assert plan.block_u >= demand.units or (plan.schedule == "tiled" and not demand.reduces_rows)


def test_there_is_something_to_choose_from():
    found = candidates(demand_of(lstm, 128, 1, torch.bfloat16, False), ARCHS["sm_90"])
    for field in ("schedule", "block_b", "block_u", "block_k", "warps", "stages"):
        assert len({getattr(plan, field) for plan in found}) > 1, field


def test_what_does_not_fit_is_left_out():
    demand = demand_of(lstm, 64, 1, torch.bfloat16, False)
    large, small = (candidates(demand, ARCHS["sm_90"]._replace(shared_limit=kib * 1024)) for kib in (227, 32))
    assert {plan.schedule for plan in large} == {"resident", "tiled"} and {plan.schedule for plan in small} == {"tiled"}
    assert 0 < len(small) < len([plan for plan in large if plan.schedule == "tiled"])


@pytest.mark.parametrize(
    ("cell", "units", "dtype", "backward"), [(lstm, 64, torch.float16, False), (gru, 100, torch.float32, True)]
)
def test_the_extremes_compile_within_the_shared_memory(cell, units, dtype, backward):
    arch = ARCHS["sm_86"]
    found = candidates(demand_of(cell, units, 1, dtype, backward), arch)
    for schedule in {plan.schedule for plan in found}:
        own = [plan for plan in found if plan.schedule == schedule]
        plan = max(own, key=lambda plan: (plan.block_b * plan.block_u * max(1, plan.block_k), plan.stages))
        kernel = compile_ahead(first_launch(cell, units, dtype, backward, plan), GPUTarget("cuda", arch.version, 32))
        assert kernel.metadata.shared <= arch.shared_limit


def first_launch(cell, U, dtype, backward, plan):
    T, B, Q = 3, 64, cell.gates * U

    def meta(*shape):
        return torch.empty(shape, dtype=dtype, device="meta")

    state = tuple(meta(1, B, 1, U) for _ in cell.states)
    inputs = launch.Inputs(meta(T, B, 1, 1, Q), state, meta(1, 1, U, Q), meta(1, 1, Q), (), (), None)
    outputs, generated = launch.allocate_outputs(inputs, keep_states=True, keep_r=True), generate(cell)
    if not backward:
        return next(launch.forward(generated, inputs, outputs, plan))
    gradients = launch.allocate_gradients(generated, inputs)
    return next(launch.backward(generated, inputs, outputs, outputs.states, outputs.finals, gradients, plan))
