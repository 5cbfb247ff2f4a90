"""The facts of the capacity rule: what it chooses where, what it refuses and how it says so.
Nothing is compiled here.
"""

import itertools
from types import SimpleNamespace

import pytest
import torch

from seqnets.kernels.triton.planning.arch import ARCHS, KIB, arch_of
from seqnets.kernels.triton.planning.capacity import Demand, Refusal, choose, misfit
from seqnets.kernels.triton.planning.plan import Plan

HALF, TF32, IEEE, DOUBLE = (
    {"dtype": dtype, "precision": precision}
    for dtype, precision in (
        (torch.bfloat16, "ieee"), (torch.float32, "tf32"), (torch.float32, "ieee"), (torch.float64, "ieee"),
    )
)  # fmt: skip
CELLS = {
    "rnn": {"gates": 1, "states": 1},
    "gru": {"gates": 3, "states": 1, "additive": False},
    "lstm": {"gates": 4, "states": 2},
    "peephole": {"gates": 4, "states": 2, "params": 3},
    "normed": {"gates": 4, "states": 2, "params": 2, "masks": 1, "reduces_rows": True},
    "wide": {"gates": 9, "states": 4, "params": 2, "masks": 1, "additive": False},
}


def demand(cell="lstm", units=128, heads=1, backward=False, kind=HALF):
    facts = {"params": 0, "masks": 0, "reduces_rows": False, "additive": True} | CELLS[cell]
    return Demand(**facts, units=units, heads=heads, backward=backward, **kind)


def demands():
    for cell, units, heads, backward, kind in itertools.product(
        CELLS, (1, 16, 70, 128, 256, 1000, 4096), (1, 4), (False, True), (HALF, TF32, IEEE, DOUBLE)
    ):
        yield demand(cell, units, heads, backward, kind)


def schedule(arch, **facts):
    return choose(demand(**facts), ARCHS[arch]).schedule


def test_the_weight_is_resident_where_shared_memory_has_room_for_it():
    assert [schedule(arch) for arch in ARCHS] == ["resident", "tiled", "tiled", "resident", "resident", "tiled"]
    assert {schedule(arch, units=64) for arch in ARCHS} == {"resident"}
    assert {schedule(arch, units=512) for arch in ARCHS} == {"tiled"}


def test_units_are_padded_to_a_power_of_two():
    assert [choose(demand(units=U), ARCHS["sm_90"]).block_u for U in (1, 16, 17, 70, 100, 128)] == [
        16,
        16,
        32,
        128,
        128,
        128,
    ]
    assert schedule("sm_90", units=129) == "tiled"


def test_heads_make_a_wide_layer_resident():
    assert schedule("sm_90", units=1024) == "tiled"
    assert schedule("sm_90", units=128, heads=8) == "resident"


def test_it_says_why_in_numbers():
    assert choose(demand(), ARCHS["sm_90"]).why == (
        "the recurrent weight of a head takes 128 KiB and stays in shared memory"
    )
    assert choose(demand(), ARCHS["sm_86"]).why == (
        "the recurrent weight of a head, padded to 128 units, "
        "with what is staged takes 136 KiB of shared memory, and sm_86 has 99 KiB"
    )


def test_a_schedule_can_be_asked_for():
    assert choose(demand(units=16), ARCHS["sm_90"], "tiled").why == "it was asked for"
    assert choose(demand(units=512), ARCHS["sm_90"], "tiled") == choose(demand(units=512), ARCHS["sm_90"])
    refusal = choose(demand(units=512), ARCHS["sm_90"], "resident")
    assert isinstance(refusal, Refusal) and "padded to 512 units" in refusal.why
    with pytest.raises(ValueError, match="unknown schedule 'persistent': choose 'resident' or 'tiled'"):
        choose(demand(), ARCHS["sm_90"], "persistent")


def test_row_reductions_stay_in_one_program_or_are_refused():
    for U in (16, 100, 256):
        assert choose(demand("normed", U), ARCHS["sm_90"]).block_u >= U
    assert choose(demand("normed", 100), ARCHS["sm_90"], "tiled").block_u == 128
    refusal = choose(demand("normed", 1024), ARCHS["sm_90"])
    assert isinstance(refusal, Refusal) and refusal.why.startswith(
        "its cell reduces over all units, so one program has to"
    )
    heads = choose(demand("normed", 16, heads=4), ARCHS["sm_90"])
    assert heads == Refusal("its cell reduces over all units, and 4 heads are 4 programs that do not meet")


def test_any_size_is_served_where_rows_are_not_reduced():
    for one, arch in itertools.product(demands(), ARCHS.values()):
        assert one.reduces_rows or isinstance(choose(one, arch), Plan), (one, arch.name)


def test_what_is_chosen_fits_and_is_what_the_kernels_can_be():
    for one, arch, asked in itertools.product(demands(), ARCHS.values(), (None, "resident", "tiled")):
        plan = choose(one, arch, asked)
        if isinstance(plan, Refusal):
            continue
        assert misfit(one, arch, plan) is None and plan.why
        assert asked in (None, plan.schedule)
        assert plan.block_u >= one.units or plan.schedule == "tiled"
        assert plan.schedule == "resident" or plan.block_k >= 16  # as dots need
        assert all(n & (n - 1) == 0 for n in (plan.block_b, plan.block_u, plan.block_k, plan.warps))
        assert plan.warps * arch.warp_size <= 1024
        assert plan.options.get("maxnreg", 0) * plan.warps * 32 <= 65536


def test_a_plan_that_is_too_large_is_a_misfit():
    arch = ARCHS["sm_90"]
    plan = choose(demand(), arch)
    assert "takes 192 KiB" in misfit(demand(), arch._replace(shared_limit=164 * KIB), plan._replace(block_b=64))
    assert misfit(demand(), arch, plan._replace(block_b=32)) == (
        "a step of 128 units in one program takes more registers than it has"
    )


def test_fewer_rows_where_registers_are_short():
    assert choose(demand("peephole", 128, backward=True), ARCHS["sm_90"]).block_b == 8
    assert choose(demand("lstm", 128, backward=True), ARCHS["sm_90"]).block_b == 16
    assert [choose(demand("normed", U), ARCHS["sm_90"], "tiled").block_b for U in (16, 64, 128, 256)] == [16, 16, 8, 4]


def device(monkeypatch, hip=None, **properties):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(**properties))
    monkeypatch.setattr(torch.version, "hip", hip)
    return arch_of.__wrapped__(torch.device("cuda:0"))  # not what another test found


@pytest.mark.parametrize(
    ("capability", "optin", "name"),
    [
        ((8, 0), 163, "sm_80"), ((8, 6), 99, "sm_86"), ((8, 7), 163, "sm_86"), ((8, 9), 99, "sm_89"),
        ((9, 0), 227, "sm_90"), ((10, 0), 227, "sm_100"), ((12, 0), 99, "sm_100"),
    ],
)  # fmt: skip
def test_a_gpu_has_the_plans_of_the_nearest_older_one_within_its_own_memory(monkeypatch, capability, optin, name):
    major, minor = capability
    arch = device(monkeypatch, name="GPU", major=major, minor=minor, shared_memory_per_block_optin=optin * KIB)
    assert (arch.name, arch.shared_limit) == (name, optin * KIB)


def test_a_gpu_that_is_too_old_is_refused_with_a_reason(monkeypatch):
    why = device(monkeypatch, name="Tesla T4", major=7, minor=5)
    assert why == ("its kernels need compute capability 8.0, for products in bfloat16 and TF32, and Tesla T4 has 7.5")


def test_amd_gpus_by_their_architecture(monkeypatch):
    facts = {"name": "AMD", "major": 9, "minor": 4}
    assert device(monkeypatch, "6.4", **facts, gcnArchName="gfx942:sramecc+:xnack-") == ARCHS["gfx942"]
    assert device(monkeypatch, "6.4", **facts, gcnArchName="gfx950") == ARCHS["gfx942"]
    why = device(monkeypatch, "6.4", **facts, gcnArchName="gfx1100")
    assert why == "of AMD's GPUs its kernels are for gfx942 and newer ones of that line, and AMD is gfx1100"
