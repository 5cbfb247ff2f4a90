"""Lists the plans that a measurement may choose from: the capacity rule's own and others that the rule allows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from seqnets.kernels.triton.planning.arch import Arch
from seqnets.kernels.triton.planning.capacity import Demand, Refusal, choose, misfit, padded_units, registers_of
from seqnets.kernels.triton.planning.plan import Plan


def candidates(demand: Demand, arch: Arch) -> list[Plan]:
    """Return plans for one pass that fit the GPU by the capacity rule, its own choice first; none if it refuses."""
    default = choose(demand, arch)
    if isinstance(default, Refusal):
        return []
    other = choose(demand, arch, "tiled" if default.schedule == "resident" else "resident")
    bases = [default] if isinstance(other, Refusal) else [default, other]
    return list(dict.fromkeys([*bases, *(plan for base in bases for plan in _variations(demand, arch, base))]))


def _variations(demand: Demand, arch: Arch, base: Plan) -> Iterator[Plan]:
    """Yield plans with the schedule of `base` and other rows, units, depths, warps and stages."""
    tiled = base.schedule == "tiled"
    units = {16, base.block_u, 2 * base.block_u} if tiled and not demand.reduces_rows else {base.block_u}
    depths = {base.block_k, 2 * base.block_k} if tiled else {base.block_k}
    stages = {2, base.stages} if tiled else {base.stages}
    widest = max(base.block_u, padded_units(demand.units))
    for rows, block_u, block_k, warps, depth in product(
        sorted({base.block_b, 16, 32, 64}),
        sorted(units),
        sorted(depths),
        (4, 8) if tiled else (4, 8, 16),
        sorted(stages),
    ):
        plan = base._replace(
            block_b=rows,
            block_u=block_u,
            block_k=block_k,
            warps=warps * 32 // arch.warp_size,
            stages=depth,
            max_registers=None if base.max_registers is None else registers_of(warps),
        )
        if max(block_u, block_k) <= widest and misfit(demand, arch, plan) is None:
            yield plan
