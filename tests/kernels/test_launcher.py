"""Kernels through Triton's own launcher, up to the GPU: it binds and specialises arguments by its own rules, which neither
the interpreter nor ahead-of-time compilation knows. A driver that only says which GPU it would be stands in for one.
"""

import pytest
import torch

pytest.importorskip("triton", reason="kernels are launched by Triton")

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import GPUDriver

from seqnets.kernels.analysis.compiled import Case
from seqnets.kernels.generation.module import generate
from seqnets.kernels.launch import Inputs, allocate_gradients, allocate_outputs, backward, forward
from seqnets.kernels.planning.arch import ARCHS
from seqnets.kernels.planning.capacity import choose
from seqnets.kernels.planning.select import demand_of
from tests.cells import zoo


class NoGPU(GPUDriver):
    def __init__(self):
        pass

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_device_interface(self):
        return torch.cuda

    @staticmethod
    def is_active():
        return True

    def map_python_to_cpp_type(self, ty):
        return ty

    def get_benchmarker(self):
        raise NotImplementedError

    def get_active_torch_device(self):
        return torch.device("cpu")


@pytest.fixture(autouse=True)
def driver(monkeypatch):
    monkeypatch.setattr(triton.runtime.driver, "_active", NoGPU())


def inputs(cell, case, T=2, B=3):
    D, N, U, Q = case.directions, case.heads, case.units, cell.gates * case.units

    def tensor(*shape):
        return torch.zeros(shape, dtype=case.dtype)

    return Inputs(
        tensor(T, B, D, N, Q),
        tuple(tensor(D, B, N, U) for _ in cell.states),
        tensor(D, N, U, Q),
        None,
        tuple(tensor(D, N, U) for _ in cell.params),
        tuple(tensor(D, 1, B, N, U) for _ in cell.masks),
        torch.full((B,), T) if case.ragged else None,
    )


@pytest.mark.parametrize("schedule", ["resident", "tiled"])
@pytest.mark.parametrize("name", ["lstm", "peephole_lstm", "zoneout_gru"])
def test_the_launcher_binds_and_compiles_what_it_is_given(name, schedule):
    cell = zoo.ALL[name]
    case = Case(units=16, heads=1, dtype=torch.float16, backward=False, ragged=True, directions=2)
    generated, given = generate(cell), inputs(cell, case)
    outputs, gradients = allocate_outputs(given, True, True), allocate_gradients(generated, given)
    d_states = (outputs.states[0], *(None for _ in cell.states[1:]))
    for is_backward in (False, True):
        plan = choose(demand_of(cell, 16, 1, case.dtype, is_backward), ARCHS["sm_90"], schedule)
        if is_backward:
            launch = next(backward(generated, given, outputs, d_states, outputs.finals, gradients, plan))
        else:
            launch = next(forward(generated, given, outputs, plan))
        arguments = {**launch.constants, **launch.options, "grid": launch.grid, "warmup": True}
        compiled = launch.kernel.run(*launch.arguments, **arguments)
        assert compiled.metadata.target.arch == 90
