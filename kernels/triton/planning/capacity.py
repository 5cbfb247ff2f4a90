"""Implements the capacity rule: which schedule runs a recurrence, with which tile, and why.

These are pure functions of the problem and the GPU. The rule claims only what compiles without spills and within the
shared memory; `tests/kernels/test_compiled.py` checks that.

Shape legend: N heads, U units per head, G gates, S states, P parameters, M masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch

from seqnets.kernels.triton.planning.arch import KIB, Arch
from seqnets.kernels.triton.planning.plan import Plan

MARGIN = 2 * KIB  # bytes of shared memory that are left free for what other versions of the compiler may add
REGISTERS = 65536  # that a block may have
MOST_REGISTERS = 255  # that a thread may have


class Demand(NamedTuple):
    """Describes one pass over one recurrence, as far as its plan depends on it."""

    gates: int
    states: int
    params: int
    masks: int
    reduces_rows: bool  # whether a unit's new state depends on all units of its row
    additive: bool  # whether gradients of x and r are the same
    units: int  # U
    heads: int  # N
    dtype: torch.dtype
    precision: str  # of float32 products: "ieee" or "tf32"
    backward: bool


class Refusal(NamedTuple):
    why: str  # a clause


class Tile(NamedTuple):
    """Holds what the tiles of one kind of arithmetic take. Warps count as 32 threads each.

    The numbers `held` were found by compiling: the other registers are for addresses and temporaries. Products without
    tensor cores take more of those, and therefore more warps.
    """

    warp_units: int  # units per warp, where a program has all units of a head
    most_warps: int
    tiled_warps: int
    held: tuple[int, int]  # registers, of 255, for what lives during a product (see `_held`); forward and backward


TILES = {
    "half": Tile(warp_units=8, most_warps=8, tiled_warps=4, held=(80, 96)),
    "tf32": Tile(warp_units=8, most_warps=8, tiled_warps=4, held=(72, 92)),
    "float32": Tile(warp_units=4, most_warps=16, tiled_warps=8, held=(48, 84)),
    "float64": Tile(warp_units=4, most_warps=8, tiled_warps=8, held=(56, 84)),
}


@cache
def choose(demand: Demand, arch: Arch, schedule: str | None = None) -> Plan | Refusal:
    """Return the plan for a demand, or the refusal of one.

    Args:
        demand: the pass to plan.
        arch: the GPU to plan for.
        schedule: ``"resident"`` or ``"tiled"``; by default resident where it fits, and tiled otherwise.

    Raises:
        ValueError: there is no such schedule.
    """
    if schedule not in (None, "resident", "tiled"):
        raise ValueError(f"unknown schedule {schedule!r}: choose 'resident' or 'tiled'")
    if demand.reduces_rows and demand.heads > 1:
        return Refusal(
            f"its cell reduces over all units, and {demand.heads} heads are {demand.heads} programs that do not meet"
        )
    resident = _first_that_fits(demand, arch, _resident(demand, arch))
    if schedule == "resident" or (schedule is None and isinstance(resident, Plan)):
        return resident
    tiled = _first_that_fits(demand, arch, _tiled(demand, arch))
    if isinstance(tiled, Refusal):
        over = "its cell reduces over all units, so one program has to have them, and " if demand.reduces_rows else ""
        return Refusal(over + tiled.why)
    return tiled._replace(why=resident.why if isinstance(resident, Refusal) else "it was asked for")


def misfit(demand: Demand, arch: Arch, plan: Plan) -> str | None:
    """Return a clause that says why a plan would spill registers or exceed shared memory; None if it does neither."""
    size = demand.dtype.itemsize
    needed = _staged(demand, plan.block_b, plan.block_u)
    if plan.schedule == "resident":
        what = f"the recurrent weight of a head, padded to {plan.block_u} units, with what is staged"
        needed += demand.gates * plan.block_u**2 * size
    else:
        what = f"a tile of {plan.block_u} units"
        columns = plan.block_u * (1 if demand.backward else demand.gates)
        needed = max(needed, max(1, plan.stages - 1) * (plan.block_b + columns) * plan.block_k * size)
    if needed + MARGIN > arch.shared_limit:
        return f"{what} takes {_kib(needed)} of shared memory, and {arch.name} has {_kib(arch.shared_limit)}"
    if not _fits_registers(demand, arch, plan):
        return f"a step of {plan.block_u} units in one program takes more registers than it has"
    return None


def _first_that_fits(demand: Demand, arch: Arch, plans: Iterator[Plan]) -> Plan | Refusal:
    why: str | None = None
    for plan in plans:
        why = misfit(demand, arch, plan)
        if why is None:
            return plan
    assert why is not None
    return Refusal(why)


# A tile has 16 rows, which tensor cores multiply at once. The batch size is not known here, and more rows make a step
# no faster, as reading the weight bounds it, but leave more of the GPU idle. Where registers are short, a tile has
# fewer rows.


def _resident(demand: Demand, arch: Arch) -> Iterator[Plan]:
    tile = _tile(demand, arch)
    block_u = padded_units(demand.units)
    warps = _warps(block_u, tile.warp_units, tile.most_warps)
    weight = demand.gates * block_u**2 * demand.dtype.itemsize
    why = f"the recurrent weight of a head takes {_kib(weight)} and stays in shared memory"
    for rows in (16, 8):
        yield _plan(demand, arch, "resident", (rows, block_u, 0), warps, 1, why)


def _tiled(demand: Demand, arch: Arch) -> Iterator[Plan]:
    # A program reads its part of the weight again in each launch, so it has few units. It reads long pieces at once,
    # because a launch waits for the barriers between pieces. They are longer in backward, whose products are narrow and
    # deep.
    padded = padded_units(demand.units)
    depth = padded_units(demand.units * demand.gates) if demand.backward else padded
    blocks, warps = [(16, 16), (8, 16)], _tile(demand, arch).tiled_warps
    block_k = min((512 if demand.backward and warps == 4 else 256) // demand.dtype.itemsize, depth)
    stages: tuple[int, ...] = (4, 3, 2) if arch.backend == "cuda" else (2,)  # AMD's pipeline is in registers
    if demand.reduces_rows:  # one program must have the whole row, so it has less of everything else
        blocks = [(16, padded), (8, padded), (4, padded)]
        most = 16 if arch.backend == "cuda" and demand.dtype.itemsize < 8 else 8
        block_k, warps, stages = 16, _warps(padded, 4, most), (2,)
    for rows, block_u in blocks:
        for number in stages:
            yield _plan(demand, arch, "tiled", (rows, block_u, block_k), warps, number)


def _plan(
    demand: Demand, arch: Arch, schedule: str, block: tuple[int, int, int], warps: int, stages: int, why: str = ""
) -> Plan:
    # a program has its multiprocessor to itself, so the compiler need not save registers for other programs
    registers = registers_of(warps) if arch.backend == "cuda" else None
    return Plan(schedule, *block, warps * 32 // arch.warp_size, stages, demand.precision, registers, why)


def _tile(demand: Demand, arch: Arch) -> Tile:
    if demand.dtype is torch.float64:
        return TILES["float64"]
    if demand.dtype is torch.float32:
        return TILES["float32" if demand.precision == "ieee" and arch.backend == "cuda" else "tf32"]
    return TILES["half"]


def padded_units(units: int) -> int:
    """Round a number of units up to what tiles have: a power of two, at least 16."""
    return max(16, 1 << (units - 1).bit_length())


def _warps(block_u: int, each: int, most: int) -> int:
    return min(max(4, block_u // each), most)


def _staged(demand: Demand, rows: int, block_u: int) -> int:
    """Return the bytes of shared memory through which tiles are converted from one layout to another."""
    at_once = 2 if demand.dtype is torch.float64 else 1
    return at_once * rows * block_u * max(demand.gates * demand.dtype.itemsize, 4)


def _held(demand: Demand, schedule: str) -> float:
    """Return the registers per unit and row: sums, states, parameters, and what was read before the product."""
    G, S, P, M = demand.gates, demand.states, demand.params, demand.masks
    R = 2 if demand.reduces_rows else 0  # tiles that wait for their reduction
    stored = demand.dtype.itemsize / 4
    carried = 2 if demand.dtype is torch.float64 else 1
    if demand.backward:
        return carried * (G + S + P + R) + stored * (2 * G + 2 * S + M + (0 if demand.additive else G))
    ahead = 2 if schedule == "resident" else 1  # it also reads ahead for the next step
    return carried * (G + S + P + R) + stored * ahead * (G + M)


def registers_of(warps: int) -> int:
    """Return how many registers each thread may have in a block of that many warps of 32 threads."""
    return min(MOST_REGISTERS, REGISTERS // (32 * warps))


def _fits_registers(demand: Demand, arch: Arch, plan: Plan) -> bool:
    warps = plan.warps * arch.warp_size // 32
    each = plan.block_b * plan.block_u / (32 * warps)
    if each <= 1 and not demand.reduces_rows:  # a thread has one entry at most, and no tile asks for less
        return True
    # rows begin at any address and end within a tile, which takes more addresses and masks
    if demand.units % plan.block_u:
        each *= 1.5
    share = _tile(demand, arch).held[demand.backward] / MOST_REGISTERS
    return each * _held(demand, plan.schedule) <= share * registers_of(warps)


def _kib(size: int) -> str:
    return f"{size / KIB:.4g} KiB"
