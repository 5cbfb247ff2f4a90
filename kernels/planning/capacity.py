"""Which schedule runs a recurrence, with which tile, and why: pure functions of the problem and the GPU.

The rule claims only what compiles without spills and within the shared memory: `tests/kernels/test_compiled.py` holds it.

Shape legend: N heads, U units per head, G gates, S states, P parameters, M masks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from seqnets.kernels.planning.arch import KIB, Arch
from seqnets.kernels.planning.plan import Plan

# Rows of a tile, the fewest that tensor cores multiply. The batch is not known here, and more rows make a step no faster:
# reading the weight bounds it, whatever the rows. Fewer give more programs, hence more of the GPU, to a small batch.
ROWS = 16
MARGIN = 2 * KIB  # of shared memory, for what other versions of the compiler may add
REGISTERS = 65536  # of a block; and a thread has at most
MOST_REGISTERS = 255
# What a thread may hold of a tile, see `_held`, if it has all its registers: the rest is for addresses and temporaries.
# Both were found by compiling.
FORWARD_HELD, HELD = 72, 116  # the resident forward pass; all others


class Demand(NamedTuple):
    """One pass over one recurrence."""

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
    """How much each takes. Warps are of 32 threads, which do for tensor cores; other products take more registers each."""

    warp_units: int  # units of a warp, where a program has all of them
    most_warps: int
    block_u: int  # units of a program, where they are split
    block_k: int  # inner dimension of a product, where it is split: 128 bytes of a row, or less


TILES = {
    "half": Tile(warp_units=8, most_warps=8, block_u=32, block_k=64),
    "tf32": Tile(warp_units=8, most_warps=8, block_u=32, block_k=32),
    "float32": Tile(warp_units=4, most_warps=16, block_u=16, block_k=16),
    "float64": Tile(warp_units=4, most_warps=8, block_u=16, block_k=16),
}


def choose(demand: Demand, arch: Arch, schedule: str | None = None) -> Plan | Refusal:
    """The plan for a demand: resident where it fits, else tiled; or by that `schedule`, ``"resident"`` or ``"tiled"``.

    Raises:
        ValueError: there is no such schedule.
    """
    if schedule not in (None, "resident", "tiled"):
        raise ValueError(f"unknown schedule {schedule!r}: choose 'resident' or 'tiled'")
    if demand.reduces_rows and demand.heads > 1:
        return Refusal(
            f"its cell reduces over all units, and {demand.heads} heads are {demand.heads} programs that do not meet"
        )
    resident = _resident(demand, arch)
    if schedule == "resident" or (schedule is None and isinstance(resident, Plan)):
        return resident
    return _tiled(demand, arch, resident)


def _resident(demand: Demand, arch: Arch) -> Plan | Refusal:
    tile = _tile(demand, arch)
    block_u = _padded(demand.units)
    warps = _warps(block_u, tile)
    size = demand.dtype.itemsize
    weight = demand.gates * block_u * block_u * size
    needed = weight + _staged(demand, block_u)
    if needed + MARGIN > arch.shared_limit:
        return Refusal(
            f"the recurrent weight of a head, padded to {block_u} units, and what is staged take {_kib(needed)} of shared "
            f"memory, and {arch.name} has {_kib(arch.shared_limit)}"
        )
    if not _fits_registers(demand, "resident", block_u, warps):
        return Refusal(f"a step of {block_u} units, all in one program, would take more registers than it has")
    why = f"the recurrent weight of a head takes {_kib(weight)} and stays in shared memory"
    return _plan(demand, arch, "resident", block_u, 0, warps, 1, why)


def _tiled(demand: Demand, arch: Arch, resident: Plan | Refusal) -> Plan | Refusal:
    tile = _tile(demand, arch)
    padded = _padded(demand.units)
    block_u, block_k, warps = min(tile.block_u, padded), min(tile.block_k, padded), 4
    if demand.reduces_rows:  # the row has to be in one program: less of everything else
        tile = tile._replace(warp_units=4, most_warps=16)
        block_u, block_k, warps = padded, 16, _warps(padded, tile)
    why = resident.why if isinstance(resident, Refusal) else "it was asked for"
    for stages in (4, 3, 2) if arch.backend == "cuda" and not demand.reduces_rows else (2,):
        inputs = (stages - 1) * (ROWS + demand.gates * block_u) * block_k * demand.dtype.itemsize
        if max(inputs, _staged(demand, block_u)) + MARGIN <= arch.shared_limit:
            break
    else:
        return Refusal(
            f"even in {block_u} units a tile of {demand.gates} gates takes more shared memory than {arch.name} has"
        )
    if not _fits_registers(demand, "tiled", block_u, warps):
        whole = "which its cell reduces over, " if demand.reduces_rows else ""
        return Refusal(f"a step of {block_u} units, {whole}takes more registers than a program has")
    return _plan(demand, arch, "tiled", block_u, block_k, warps, stages, why)


def _plan(
    demand: Demand, arch: Arch, schedule: str, block_u: int, block_k: int, warps: int, stages: int, why: str
) -> Plan:
    # programs have a processor to themselves, so the compiler is not to save registers for the sake of others
    registers = _registers(warps) if arch.backend == "cuda" else None
    warps = warps * 32 // arch.warp_size
    return Plan(schedule, ROWS, block_u, block_k, warps, stages, demand.precision, registers, why)


def _tile(demand: Demand, arch: Arch) -> Tile:
    if demand.dtype is torch.float64:
        return TILES["float64"]
    if demand.dtype is torch.float32:
        return TILES["float32" if demand.precision == "ieee" and arch.backend == "cuda" else "tf32"]
    return TILES["half"]


def _padded(units: int) -> int:
    """As tiles have them: powers of two."""
    return max(16, 1 << (units - 1).bit_length())


def _warps(block_u: int, tile: Tile) -> int:
    return min(max(4, block_u // tile.warp_units), tile.most_warps)


def _staged(demand: Demand, block_u: int) -> int:
    """Bytes of shared memory through which tiles go from one layout to another, one at a time."""
    size = demand.dtype.itemsize
    at_once = 2 if demand.dtype is torch.float64 else 1
    return at_once * ROWS * block_u * max(demand.gates * size, 4)


def _held(demand: Demand, schedule: str) -> float:
    """Registers per unit for what lives during a product: sums, states, parameters, and what was read before it."""
    G, S, P, M = demand.gates, demand.states, demand.params, demand.masks
    stored = demand.dtype.itemsize / 4
    carried = 2 if demand.dtype is torch.float64 else 1
    if demand.backward:
        return carried * (G + S + P) + stored * (2 * G + 2 * S + M + (0 if demand.additive else G))
    if schedule == "resident":
        return carried * (G + P) + stored * 2 * (G + M)  # of this step and the next
    return carried * (G + S + P) + stored * (G + M)


def _registers(warps: int) -> int:
    """That a thread may have."""
    return min(MOST_REGISTERS, REGISTERS // (32 * warps))


def _fits_registers(demand: Demand, schedule: str, block_u: int, warps: int) -> bool:
    held = _held(demand, schedule) * ROWS * block_u / (32 * warps)
    share = (FORWARD_HELD if schedule == "resident" and not demand.backward else HELD) / MOST_REGISTERS
    return held <= share * _registers(warps)


def _kib(size: int) -> str:
    return f"{size / KIB:.4g} KiB"
