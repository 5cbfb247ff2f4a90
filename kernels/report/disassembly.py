"""Counts registers, spills, shared memory and instructions per time step of a compiled kernel, without a GPU."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from seqnets.kernels.report.flow import Region, Unclear, regions, tool
from seqnets.kernels.report.work import Dots, dots

NVIDIA = {
    "barriers": r"BAR\.(SYNC|RED)",
    "instructions": r"",
    "tensor_core": r"[A-Z]+MMA(\.|$)",
    "shared_loads": r"(LDS|LDSM|UTMASTG)(\.|$)",
    "shared_stores": r"(STS|STSM|LDGSTS|UTMALDG)(\.|$)",
    "global_loads": r"(LDG|LD|LDGSTS|UTMALDG)(\.|$)",
    "global_stores": r"(STG|ST|UTMASTG)(\.|$)",
}
AMD = {
    "barriers": r"s_barrier",
    "instructions": r"",
    "tensor_core": r"v_mfma",
    "shared_loads": r"ds_(read|load)",
    "shared_stores": r"ds_(write|store)|global_load_lds",
    "global_loads": r"(global|buffer|flat)_load",
    "global_stores": r"(global|buffer|flat)_store",
}
WAITING = r"SYNCS\.PHASECHK.*TRYWAIT|NANOSLEEP"


class Resources(NamedTuple):
    """Holds the resources that a kernel occupies."""

    registers: int  # per thread; on AMD the vector registers, including accumulation registers
    spills: int  # bytes of local (AMD: scratch) memory per thread; Triton's kernels use it for spills only
    shared_memory: int  # bytes per block, static and dynamic, without what the driver reserves
    scalar_registers: int | None = None  # per wavefront, AMD only
    accumulation_registers: int | None = None  # AMD only
    scalar_spills: int | None = None  # scalar registers kept in vector registers instead, AMD only


class Step(NamedTuple):
    """Counts what one warp (AMD: wavefront) issues in one time step.

    A copy from global to shared memory counts as a global load and as a shared store.
    """

    barriers: int  # of the block, including named barriers
    instructions: int
    tensor_core: int
    shared_loads: int
    shared_stores: int
    global_loads: int
    global_stores: int


class Count(NamedTuple):
    """Holds a `Step`, or else the reason why there is none."""

    step: Step | None
    reason: str | None = None


def resources(kernel: Any) -> Resources:
    """Return the registers, spills and shared memory of a `triton.compiler.CompiledKernel`. Takes milliseconds."""
    if "cubin" not in kernel.asm:
        (entry,) = re.findall(r"\.agpr_count.*?\.wavefront_size", kernel.asm["amdgcn"], re.S)
        fields = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)", entry)}
        return Resources(
            fields["vgpr_count"],
            fields["private_segment_fixed_size"],
            fields["group_segment_fixed_size"] + kernel.metadata.shared,
            fields["sgpr_count"],
            fields["agpr_count"],
            fields["sgpr_spill_count"],
        )
    listing = tool("cuobjdump", kernel.asm["cubin"], "--dump-resource-usage")
    usage = re.search(rf"Function {re.escape(kernel.name)}:\s+(.*)", listing)
    assert usage is not None, "a cubin of Triton's holds the kernel under its own name"
    fields = {name: int(value) for name, value in re.findall(r"(\w+):(\d+)", usage[1])}
    reserved = 1024 if kernel.metadata.target.arch >= 90 else 0  # listed since sm_90, but not counted against the limit
    return Resources(
        fields["REG"], fields["STACK"] + fields["LOCAL"], fields["SHARED"] - reserved + kernel.metadata.shared
    )


def per_step(kernel: Any, *, time_loop: bool, trips: int | None = None) -> Count:
    """Count the instructions of one time step in the disassembly. Takes some tenths of a second.

    Instructions under a branch that may be skipped count once, and so do the retries of a wait. Out-of-line slow paths
    of arithmetic (``CALL`` of a division in float64) do not count. The number of runs of a loop in the disassembly
    follows from the products that the dots must compute (see `work.py`), even if the loop was unrolled, peeled or
    pipelined.

    Args:
        kernel: A `triton.compiler.CompiledKernel`, compiled ahead of time or not.
        time_loop: True if the time loop is in the kernel, so that a step is the body of the loop around the dots. False
            if a launch is one time step, so that a step is the whole kernel.
        trips: Iterations per time step of a loop around the dots (over K), if its bounds are not constants.

    Returns:
        The counts, or the reason why they cannot be told with certainty.
    """
    try:
        asked, code = dots(kernel), regions(kernel)
        region, wanted = _time_loop(code, asked) if time_loop else (_settled(code, asked), asked.region)
        runs = _runs(region, wanted, asked, trips)
        table = NVIDIA if "cubin" in kernel.asm else AMD
        once, looped = _tally(region.once, table), _tally((op for loop in region.loops for op in loop), table)
        return Count(Step(**{name: once[name] + runs * looped[name] for name in table}))
    except Unclear as unclear:
        return Count(None, str(unclear))


def _tally(opcodes: Iterable[str], table: dict[str, str]) -> Counter[str]:
    return Counter(name for opcode in opcodes for name, pattern in table.items() if re.match(pattern, opcode))


def _work(opcodes: Iterable[str], asked: Dots) -> int:
    return sum(map(asked.measure, opcodes))


def _only(loops: list[Region]) -> Region:
    if len(loops) != 1:
        raise Unclear(f"there are {len(loops)} loops with dots, not one time loop")
    return loops[0]


def _time_loop(code: Region[str], asked: Dots) -> tuple[Region[str], Region[int]]:
    least = min(asked.region, default=0)
    if not least:
        raise Unclear("there is no dot to know the time loop by")
    loop = _only([loop for loop in code.loops if _work(loop, asked) >= least])
    wanted = _only([loop for loop in asked.region.loops if any(loop)])
    if not asked.exact and (wanted.trips is not None or loop.exits > 1 or _work(code.once, asked) >= least):
        # a loop whose trip count comes from the launch can only be unrolled with more exits or a remainder
        raise Unclear("the time loop may have been unrolled")
    return _settled(loop, asked), wanted


def _settled(region: Region[str], asked: Dots) -> Region[str]:
    """Return the region with only its dot loops; the retries of a wait become straight code.

    Raises:
        Unclear: There is another kind of loop, or the dots lie more than one loop deep.
    """
    settled = Region(list(region.once), [], region.maybe)
    for loop in region.loops:
        inner = _settled(loop, asked)
        if (least := min(asked.region, default=0)) and _work(inner, asked) >= least:
            if inner.loops:
                raise Unclear("the dots of a time step lie more than one loop deep")
            settled.loops.append(inner)
        elif not inner.loops and any(re.match(WAITING, opcode) for opcode in inner):
            settled.once += inner.once
        else:
            raise Unclear("a loop without a dot, whose trip count is not known")
    return settled


def _runs(region: Region[str], wanted: Region[int], asked: Dots, trips: int | None) -> int:
    """Return how often the loop of the region runs in a time step, or 0 if it has no loop.

    Raises:
        Unclear: The number cannot be told with certainty.
    """
    if any(loop.loops for loop in wanted.loops):
        raise Unclear("the dots of a time step lie more than one loop deep")
    times = {trips if loop.trips is None else loop.trips for loop in wanted.loops} or {0}
    if len(times) > 1:
        raise Unclear("the loops around the dots differ in their trip counts")
    (trips,) = times
    if trips is None:
        raise Unclear("the trip count of the loop around the dots is not a constant, and was not given")
    per_trip = sum(sum(loop) for loop in wanted.loops)
    total = sum(wanted.once) + trips * per_trip
    straight, looped = _work(region.once, asked), sum(_work(loop, asked) for loop in region.loops)
    if not region.loops:
        if straight == total or (straight > total and not asked.exact):
            return 0
        raise Unclear(f"{straight} multiply-adds where a time step needs {total}: a loop was unrolled or peeled")
    if not asked.exact:
        if len(region.loops) == 1 and per_trip <= looped < 2 * per_trip and straight < sum(wanted.once) + per_trip:
            return trips  # neither unrolled nor peeled, otherwise there would be more arithmetic
        raise Unclear("without tensor cores, copies of a dot cannot be told from the arithmetic of the step")
    if straight > sum(wanted.once) and _work(region.maybe, asked):
        raise Unclear("copies of a loop's dots lie under a branch outside of it")
    runs, rest = divmod(total - straight, looped)
    if rest or runs < 1 or (len(region.loops) > 1 and runs != trips):
        raise Unclear(f"no number of runs of a loop of {looped} multiply-adds makes {total - straight}")
    return runs
