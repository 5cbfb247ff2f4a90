"""Counts the multiply-adds of a kernel's dots: how many the dots need, and how many one instruction does.

The compiler may unroll, peel or pipeline a loop, but it does not change how much there is to multiply. So the products
in the intermediate representation tell how often a loop of the disassembly runs in a time step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from seqnets.kernels.report.flow import Region, Unclear

Tile = tuple[int, int]  # rows, columns of a dot's result

DOT = re.compile(
    r"(?:tt\.dot|warp_group_dot) .* (?:tensor|!ttg\.memdesc)<(\d+)x(\d+)x[a-z].* \* "
    r"(?:tensor|!ttg\.memdesc)<\d+x(\d+)x[a-z].* -> tensor<\d+x\d+x[a-z]\w*(?:, (#\w+))?>"
)


class Dots(NamedTuple):
    """Holds a kernel's dots, each as the multiply-adds it needs of one warp (tensor cores) or thread (otherwise)."""

    region: Region[int]
    measure: Callable[[str], int]  # the multiply-adds of one instruction, in the same unit
    exact: bool  # False: `measure` also counts arithmetic that belongs to no dot


def dots(kernel: Any) -> Dots:
    """Read the dots of a `triton.compiler.CompiledKernel` from its intermediate representations.

    Raises:
        Unclear: There is a kind of dot, a layout or a loop that this reader does not know.
    """
    if re.search(r"tt\.loop_unroll_factor = (?!1 )", kernel.asm["source"]):
        raise Unclear("the kernel itself asks for an unrolled loop (loop_unroll_factor), so iterations cannot be told")
    needs: dict[Tile, list[tuple[bool, int]]] = {}
    for line in _dot_lines(kernel.asm["ttgir"]):
        tile, _, layout = _parse(line)
        needs.setdefault(tile, []).append(_need(tile, layout, kernel.asm["ttgir"]))
    kinds = {tensor for same in needs.values() for tensor, _ in same}
    if len(kinds) > 1:
        raise Unclear("some dots are on tensor cores and some are not")
    tensor = kinds != {False}
    asked = _nest(kernel.asm["ttir"], _in_order(kernel.asm["ttir"], needs))
    return Dots(asked, tensor_work if tensor else scalar_work, tensor)


def _in_order(ttir: str, needs: dict[Tile, list[tuple[bool, int]]]) -> Iterator[int]:
    asked = [_parse(line) for line in _dot_lines(ttir)]
    tiles = [tile for tile, _, _ in asked]
    for at, (tile, depth, _) in enumerate(asked):
        same, times = needs.get(tile, []), tiles.count(tile)
        if len(set(same)) == 1:
            yield same[0][1] * depth
        elif same and same == same[:times] * (len(same) // times):  # a peeled loop repeats its dots in order
            yield same[tiles[:at].count(tile)][1] * depth
        else:
            raise Unclear(f"the dots of {tile[0]} x {tile[1]} are not told apart")


def _dot_lines(text: str) -> list[str]:
    if "tc_gen5_mma" in text:
        raise Unclear("the shape of tcgen05 instructions is not in the disassembly")
    return [line for line in text.splitlines() if re.search(r"\btt\.dot|\bttng\.warp_group_dot ", line)]


def _parse(line: str) -> tuple[Tile, int, str]:
    """Return the result's tile, the depth and the layout of a dot. The compiler may split a dot in depth."""
    found = DOT.search(line)
    if found is None:
        raise Unclear(f"a dot that this reader does not know: {line.strip()[:80]}")
    if split := re.search(r"inputPrecision = (\w+x\d)", line):
        raise Unclear(f"a dot in {split[1]} is several products")
    m, k, n, layout = found.groups()
    return (int(m), int(n)), int(k), layout or ""


def _nest(ttir: str, amounts: Iterator[int]) -> Region[int]:
    region: Region[int] = Region([], [])
    open_regions = [region]
    for line in re.sub(r" loc\(.*\)$", "", ttir, flags=re.M).splitlines():
        if line.lstrip().startswith("}"):
            open_regions.pop()
        if line.endswith("{"):
            inner = open_regions[-1]
            if re.search(r"\bscf\.(for|while)\b", line):
                inner = Region([], [], trips=_trips(line, ttir))
                open_regions[-1].loops.append(inner)
            elif line.strip() == "} do {":
                inner = open_regions[-1].loops[-1]
            open_regions.append(inner)
        if _dot_lines(line):
            open_regions[-1].once.append(next(amounts))
    return region


def _trips(loop: str, ttir: str) -> int | None:
    """Return the iterations of a loop whose bounds are constants, or None for other loops."""
    bounds = re.search(r" = (%\S+) to (%\S+) step (%\S+)", loop)
    constants = dict(re.findall(r"(%\S+) = arith\.constant (-?\d+) : i", ttir))
    if bounds is None or not constants.keys() >= set(bounds.groups()):
        return None
    first, stop, step = (int(constants[name]) for name in bounds.groups())
    return len(range(first, stop, step))


def _need(tile: Tile, layout: str, ttgir: str) -> tuple[bool, int]:
    """Return whether the dot is on tensor cores, and its multiply-adds per unit of depth.

    The multiply-adds are those of one warp on tensor cores, and otherwise those of one thread.
    """
    found = re.search(rf"^{layout} = #ttg\.(\w+)<{{(.*)}}>", ttgir, re.M)
    if not layout or found is None:
        raise Unclear(f"a dot in an unknown layout {layout}")
    kind, fields = found.groups()

    def field(name: str) -> list[int]:
        value = re.search(rf"{name} = \[?([\d, ]+)", fields)
        return [int(number) for number in value[1].split(",") if number.strip()] if value else []

    warps = field("warpsPerCTA")
    if kind == "blocked":
        each = [a * b for a, b in zip(field("sizePerThread"), field("threadsPerWarp"), strict=True)]
        lanes = math.prod(field("threadsPerWarp"))
    elif kind in ("nvidia_mma", "amd_mfma"):
        instruction = field("instrShape")
        each = instruction[-2:] if field("versionMajor") == [2] else instruction[:2]
        lanes = 1
    else:
        raise Unclear(f"a dot in an unknown layout {kind}")
    # warps beyond the tile repeat the work of others
    tiles = [math.ceil(size / (e * w)) * e for size, e, w in zip(tile, each, warps, strict=True)]
    return kind != "blocked", math.prod(tiles) // lanes


def tensor_work(opcode: str) -> int:
    """Return the multiply-adds of a tensor-core instruction for one warp, by the shape in its name; 0 for others."""
    if opcode.startswith("v_mfma"):
        shape = re.match(r"v_mfma_[a-z]+\d+_(\d+)x(\d+)x(\d+)_?(?:(\d+)b)?", opcode)
    elif re.match(r"[A-Z]+MMA\.", opcode):
        shape = re.match(r"[A-Z]+MMA\.(\d+)x(\d+)x(\d+)()|[A-Z]+MMA\.(16|8)(8)(\d+)()\b", opcode)
    else:
        return 0
    if shape is None:
        raise Unclear(f"the shape of {opcode} is not in its name")
    product = math.prod(int(size) for size in shape.groups() if size)
    return product // 4 if re.match(r"[A-Z]GMMA", opcode) else product  # four warps share a warpgroup's instruction


def scalar_work(opcode: str) -> int:
    """Return how many floating-point multiplications and additions an instruction does per thread, fused pairs once."""
    if found := re.match(r"[FD](?:FMA|MUL|ADD)(2?)(?:\.|$)", opcode):
        return 2 if found[1] else 1
    if found := re.match(r"v_(pk_)?(?:fma|fmac|mul|add)_f(?:32|64)", opcode):
        return 2 if found[1] else 1
    return 0
