"""What the capacity rule claims compiles without spills, within the GPU's shared memory; and what a time step costs.

The default run takes a part of the matrix that meets every cell, size, dtype and architecture; ``pytest -m matrix``
takes all.
"""

import itertools

import pytest
import torch

pytest.importorskip("triton", reason="kernels are compiled by Triton")

from seqnets.kernels.report.compiled import compile_case, examine
from seqnets.kernels.report.disassembly import resources
from seqnets.kernels.triton.cases import Case
from seqnets.kernels.triton.planning.arch import ARCHS
from seqnets.kernels.triton.planning.capacity import Refusal, choose
from seqnets.kernels.triton.planning.select import demand_of
from tests.cells import zoo
from tests.kernels.barriers import MOST

BUILT_IN = ("rnn_tanh", "rnn_relu", "lstm", "gru")
SIZES = (1, 16, 64, 70, 100, 128, 256, 512, 1024)
DTYPES = {
    "fp16": (torch.float16, "ieee"),
    "bf16": (torch.bfloat16, "ieee"),
    "tf32": (torch.float32, "tf32"),
    "fp32": (torch.float32, "ieee"),
    "fp64": (torch.float64, "ieee"),
}


def planned(cell, hidden, dtype, arch, backward, schedule=None):
    """The demand and the plan, a refusal perhaps."""
    dtype, precision = DTYPES[dtype]
    demand = demand_of(cell, hidden, 1, dtype, backward)._replace(precision=precision)
    return choose(demand, ARCHS[arch], schedule)


def faults(name, hidden, dtype, arch, schedule=None, ragged=False):
    """What is wrong with the kernels that the rule claims, in words."""
    cell, found = zoo.ALL[name], []
    for backward in (False, True):
        plan = planned(cell, hidden, dtype, arch, backward, schedule)
        if isinstance(plan, Refusal):
            continue
        case = Case(hidden, 1, DTYPES[dtype][0], backward, ragged=ragged, directions=1 + ragged)
        used = resources(compile_case(cell, case, plan, ARCHS[arch]))
        if used.spills or used.shared_memory > ARCHS[arch].shared_limit:
            found.append(f"{'backward' if backward else 'forward'} H={hidden} {plan.schedule}: {used}")
    return found


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_half_precision_at_every_size(name, ragged):
    assert [fault for hidden in SIZES for fault in faults(name, hidden, "bf16", "sm_90", ragged=ragged)] == []


@pytest.mark.parametrize("schedule", ["resident", "tiled"])
def test_inference_that_keeps_the_output_alone(schedule):
    """The kernel gets a tuple with None for the cell state. Triton 3.6 does not know the length of such a tuple."""
    cell, case = zoo.ALL["lstm"], Case(64, 1, torch.bfloat16, backward=False, kept=False)
    plan = planned(cell, 64, "bf16", "sm_90", False, schedule)
    assert resources(compile_case(cell, case, plan, ARCHS["sm_90"])).spills == 0


@pytest.mark.parametrize("arch", ARCHS)
def test_every_dtype_on_every_architecture(arch):
    assert [fault for dtype in DTYPES for fault in faults("lstm", 128, dtype, arch)] == []


@pytest.mark.parametrize("name", [name for name in zoo.ALL if name not in ("lstm", "gru")])
def test_every_cell(name):
    assert [fault for hidden in (70, 512) for fault in faults(name, hidden, "bf16", "sm_90")] == []


@pytest.mark.matrix
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BUILT_IN)
def test_the_whole_matrix(name, dtype, arch):
    assert [fault for hidden in SIZES for fault in faults(name, hidden, dtype, arch)] == []


@pytest.mark.matrix
@pytest.mark.parametrize("schedule", ["resident", "tiled"])
@pytest.mark.parametrize("name", zoo.ALL)
def test_every_cell_in_both_schedules_and_ragged(name, schedule):
    cases = itertools.product((16, 64, 100, 128, 256), DTYPES)
    assert [fault for hidden, dtype in cases for fault in faults(name, hidden, dtype, "sm_90", schedule, True)] == []


def step(name, hidden, backward=False, kept=True, arch="sm_90"):
    """The counts of one time step, bf16."""
    plan = planned(zoo.ALL[name], hidden, "bf16", arch, backward)
    compiled = examine(zoo.ALL[name], Case(hidden, 1, torch.bfloat16, backward, kept), plan, ARCHS[arch])
    assert compiled.counted.step is not None, compiled.counted.reason
    return compiled.counted.step


def test_barriers_of_a_resident_step():
    assert step("lstm", 128).barriers <= MOST["lstm forward"]
    assert step("lstm", 128, kept=False).barriers <= MOST["lstm inference"]
    assert step("lstm", 128, backward=True).barriers <= MOST["lstm backward"]
    assert step("gru", 128).barriers <= MOST["gru forward"]
    assert step("gru", 128, backward=True).barriers <= MOST["gru backward"]


def test_a_resident_step_reads_its_weight_from_shared_memory_alone():
    """Of global memory it reads x: 16 rows x 512 gates of 2 bytes, 64 bytes for each of 256 threads, 16 at a time."""
    assert step("lstm", 128, kept=False).global_loads == 4
    assert step("lstm", 128, kept=False).tensor_core == 16 * 512 * 128 // (8 * 16 * 8 * 16)  # by 8 warps, m16n8k16
