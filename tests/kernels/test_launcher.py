"""Kernels through Triton's own launcher, up to the GPU: it binds and specializes arguments by its own rules, which
neither the interpreter nor ahead-of-time compilation knows. A driver that only says which GPU it would be stands in for
one, and what would be launched is compiled, or found in Triton's cache.
"""

import pytest
import torch

pytest.importorskip("triton", reason="kernels are launched by Triton")

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import GPUDriver

import seqnets
from seqnets.doctor import checks
from seqnets.doctor.checks import time_layers
from seqnets.kernels.report.compilations import watch_compilations
from seqnets.kernels.triton import compiling
from seqnets.kernels.triton.agreement import errors, variants
from seqnets.kernels.triton.ahead_of_time import compile_ahead, is_compiled
from seqnets.kernels.triton.cases import Case, first_launch
from seqnets.kernels.triton.compiling import place_of, plan_variant
from seqnets.kernels.triton.launch import Inputs, Launch, allocate_gradients, allocate_outputs, backward, forward
from seqnets.kernels.triton.module import generate
from seqnets.kernels.triton.planning import select
from seqnets.kernels.triton.planning.arch import ARCHS
from seqnets.kernels.triton.planning.capacity import choose
from seqnets.kernels.triton.planning.select import demand_of, use_schedule
from seqnets.kernels.triton.schedules import resident, tiled
from seqnets.kernels.triton.trial import Variant
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


SM_90 = place_of(ARCHS["sm_90"])
KERNELS = resident.forward, resident.backward, tiled.forward, tiled.backward


@pytest.fixture(autouse=True)
def driver(monkeypatch, tmp_path):
    """Nothing was compiled before."""
    monkeypatch.setattr(triton.runtime.driver, "_active", NoGPU())
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for kernel in KERNELS:
        kernel.device_caches.clear()


def launch_nowhere(launch):
    """All of a launch but the GPU's part; the compiled kernel."""
    arguments = {**launch.constants, **launch.options, "grid": launch.grid, "warmup": True}
    return launch.kernel.run(*launch.arguments, **arguments)


@pytest.fixture
def launched(monkeypatch):
    """The keys of the kernels that are launched, on CPU tensors as if they lay on a GPU."""
    monkeypatch.setenv("SEQNETS_CHECK", "0")
    monkeypatch.setattr("seqnets.backends.triton.why_unavailable", lambda device: None)
    monkeypatch.setattr(select, "arch_here", lambda device: SM_90.arch)
    found = set()
    monkeypatch.setattr(Launch, "run", lambda launch: found.add(launch_nowhere(launch).hash))
    return found


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


@pytest.mark.sampled(2)
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
        assert launch_nowhere(launch).metadata.target.arch == 90


# ---- the kernels that were compiled ahead of time


@pytest.mark.parametrize("schedule", ["resident", "tiled"])
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_the_launcher_finds_in_the_cache_what_was_compiled_ahead_of_time(name, schedule):
    cell, dtype = zoo.ALL[name], torch.bfloat16
    training, inference, gradient = (
        Case(16, 1, dtype, is_backward, kept) for is_backward, kept in [(False, True), (False, False), (True, True)]
    )
    for case in (training, inference, gradient):
        plan = choose(demand_of(cell, 16, 1, dtype, case.backward), SM_90.arch, schedule)
        launch, seen = first_launch(cell, case, plan), []
        assert not is_compiled(launch, SM_90.target)
        with watch_compilations(seen):
            compile_ahead(launch, SM_90.target)
            launch_nowhere(launch)
        assert [compilation.cached for compilation in seen] == [False, True]
        assert is_compiled(launch, SM_90.target)


def test_the_c_launcher_is_compiled_beforehand_too_where_the_gpu_is(monkeypatch):
    made = []
    monkeypatch.setattr(
        triton.runtime.driver.active, "launcher_cls", lambda src, metadata: made.append((src.fn, metadata.shared)),
        raising=False,
    )  # fmt: skip
    variant = Variant("", 1, 16, 1, False, (), torch.float16, True, False, False, False)
    request = plan_variant(zoo.ALL["lstm"], variant, SM_90)[0]
    compiling.compile_one(request)
    assert made == []
    compiling.compile_one(request._replace(place=SM_90._replace(device=torch.device("cuda", 0))))
    compiled = compile_ahead(first_launch(request.cell, request.case, request.plan), SM_90.target)
    assert made == [(resident.forward, compiled.metadata.shared)]


def compiled_for(cell, variants, schedule):
    """The keys of the kernels that are compiled beforehand for those variants."""
    requests = {request for variant in variants for request in plan_variant(cell, variant, SM_90, schedule)}
    kernels = [compile_ahead(first_launch(r.cell, r.case, r.plan), r.place.target) for r in requests]
    keys = {kernel.hash for kernel in kernels}
    assert len(keys) == len(requests) > 0  # none is compiled twice
    return keys


def run_own(competitors):
    """A timer that times nothing."""
    competitors["triton"]()
    return {"triton": [0.0]}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("schedule", ["resident", "tiled"])
@pytest.mark.parametrize("name", ["lstm", "zoneout_gru", "peephole_lstm"])
def test_what_is_compiled_beforehand_is_what_checks_launch_and_the_doctor_times(name, schedule, launched):
    cell, cpu, dtype = zoo.ALL[name], torch.device("cpu"), torch.float16
    checked = [variant for backward in (False, True) for variant in variants(cell, 1, 16, dtype, backward)]
    with use_schedule(schedule):
        for variant in checked:
            errors(cell, variant, cpu, (2, 3))
        compiled = compiled_for(cell, checked, schedule)
        assert launched == compiled
        for backward in (False, True):
            launched.clear()
            time_layers(checks.Case(cell, dtype, 16, schedule, backward), cpu, "triton", run_own)
            assert launched and launched < compiled


@pytest.mark.sampled(2)
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "bias": False, "num_heads": 2}], ids=str)
@pytest.mark.parametrize("lengths", [None, torch.tensor([2, 0, 1])], ids=["full", "ragged"])
@pytest.mark.parametrize("all_states", [False, True], ids=["output", "all_states"])
def test_what_is_compiled_beforehand_is_what_a_layer_launches(all_states, lengths, options, launched):
    cell = zoo.ALL["lstm"]
    layer = seqnets.Recurrent(cell, 5, 32, backend="triton", **options)
    for differentiated in (False, True):
        launched.clear()
        with torch.set_grad_enabled(differentiated):
            y, _, *every = layer(torch.randn(2, 3, 5), lengths=lengths, return_all_states=all_states)
        if differentiated:
            torch.autograd.grad(y.sum(), [layer.weight_hh_l0], retain_graph=True)
            if all_states:
                torch.autograd.grad(every[0].c.sum(), [layer.weight_hh_l0])
        heads, ways = options.get("num_heads", 1), 1 + options.get("bidirectional", False)
        variant = Variant(
            cell.key, heads, 32 // heads, ways, lengths is not None, (), torch.float32, options.get("bias", True),
            differentiated, differentiated, all_states,
        )  # fmt: skip
        compiled = compiled_for(cell, [variant], None)
        assert launched == compiled if differentiated else launched < compiled  # a first use's check keeps all, too


def test_a_kernel_has_one_key_whatever_was_launched_before():
    """Triton adds constants of modules that a kernel reads, unless a function that reads them was not looked at yet."""
    for kernel in KERNELS:
        assert kernel.cache_key
        assert kernel.used_global_vals == {}
