"""Finds the loops of a compiled kernel in its disassembly (SASS for NVIDIA, assembly for AMD)."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import networkx as nx
from triton import knobs

T = TypeVar("T")
END = -1


class Unclear(ValueError):
    """Raised when something cannot be counted with certainty; the message is the reason."""


class Instruction(NamedTuple):
    opcode: str
    next: tuple[int, ...]  # positions where control may go, including `END`


@dataclass
class Region(Generic[T]):
    """Holds a stretch of a program: what is outside of its loops, and the loops."""

    once: list[T]
    loops: list[Region[T]]
    maybe: list[T] = field(default_factory=list)  # the part of `once` that some path skips
    trips: int | None = None  # iterations of a loop, if known
    exits: int = 0  # number of places where a loop may be left

    def __iter__(self) -> Iterator[T]:
        yield from self.once
        for loop in self.loops:
            yield from loop


def tool(name: str, cubin: bytes, *options: str) -> str:
    """Return what a CUDA tool in Triton's wheel (``cuobjdump`` or ``nvdisasm``) prints about a cubin."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [getattr(knobs.nvidia, name).path, *options, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def regions(kernel: Any) -> Region[str]:
    """Return the opcodes of a `triton.compiler.CompiledKernel`, nested by loop.

    Raises:
        Unclear: The control flow cannot be followed, because of an indirect branch or a loop with two entries.
    """
    code = _sass(kernel) if "cubin" in kernel.asm else _amdgcn(kernel)
    graph = nx.DiGraph((here, there) for here, instruction in enumerate(code) for there in instruction.next)
    reached = nx.DiGraph(graph.subgraph({0} | nx.descendants(graph, 0)))  # the rest is padding
    return _nest(reached, 0, {END}, [instruction.opcode for instruction in code])


def _nest(graph: nx.DiGraph, entry: int, ends: set[int], opcodes: list[str]) -> Region[str]:
    region: Region[str] = Region([], [])
    always = _on_every_path(graph, entry, ends)
    for part in nx.strongly_connected_components(graph):
        first = next(iter(part))
        if first == END:
            continue
        if len(part) == 1 and not graph.has_edge(first, first):
            region.once.append(opcodes[first])
            if first not in always:
                region.maybe.append(opcodes[first])
            continue
        heads = {node for node in part if node == entry or any(p not in part for p in graph.predecessors(node))}
        if len(heads) != 1:
            raise Unclear("a loop is entered at more than one place")
        (head,) = heads
        body = nx.DiGraph(graph.subgraph(part))
        back = list(body.in_edges(head))
        body.remove_edges_from(back)
        loop = _nest(body, head, {latch for latch, _ in back}, opcodes)
        loop.exits = sum(any(there not in part for there in graph.successors(node)) for node in part)
        region.loops.append(loop)
    return region


def _on_every_path(graph: nx.DiGraph, entry: int, ends: set[int]) -> set[int]:
    above = nx.immediate_dominators(graph, entry)
    paths = []
    for node in ends:
        path = {entry}
        while node != entry:
            path.add(node)
            node = above[node]
        paths.append(path)
    return set.intersection(*paths)


JUMPS = {"BRA", "CALL", "JMP"}
ENDS = {"EXIT", "RET"}
SEQUENTIAL = {"BREAK", "BSSY", "BSYNC", "ELECT", "NANOSLEEP", "UTCBAR", "WARPSYNC", "YIELD"}


def _sass(kernel: Any) -> list[Instruction]:
    functions = json.loads(tool("nvdisasm", kernel.asm["cubin"], "--print-code", "--emit-json"))[1]
    named = {f["function-name"]: f for f in functions}
    function = named[kernel.name]
    code = []
    for here, line in enumerate(function["sass-instructions"]):
        opcode, operands = line["opcode"], line.get("operands", "").split(",")
        mnemonic, attributes = opcode.partition(".")[0], line.get("other-attributes", {})
        follow: tuple[int, ...] = (here + 1,)
        # a function called by name returns; the nvdisasm of Triton 3.6 does not mark such calls as subroutine calls
        returns = "subroutine-call" in attributes or (mnemonic == "CALL" and operands[-1] in named)
        if "control-flow" in attributes and not returns and mnemonic not in SEQUENTIAL:
            conditional = "predicate" in line or len(operands) > 1  # a uniform predicate is an operand
            if mnemonic in JUMPS:
                target = (int(operands[-1], 16) - function["start"]) // 16  # 16 bytes per instruction since sm_70
                follow = (target, here + 1) if conditional or mnemonic == "CALL" else (target,)
            elif mnemonic in ENDS:
                follow = (END, here + 1) if conditional else (END,)
            else:
                raise Unclear(f"control flow with {opcode} is not followed")
        code.append(Instruction(opcode, follow))
    return code


def _amdgcn(kernel: Any) -> list[Instruction]:
    body = re.search(rf"^{re.escape(kernel.name)}:(.*?)^\.Lfunc_end", kernel.asm["amdgcn"], re.M | re.S)
    assert body is not None, "Triton's assembly holds the kernel under its own name"
    lines: list[list[str]] = []
    labels: dict[str, int] = {}
    for line in body[1].splitlines():
        text = line.partition(";")[0]
        if label := re.match(r"(\.\w+):", text):
            labels[label[1]] = len(lines)
        elif re.match(r"\t[a-z]", text):
            lines.append(text.split())
    code = []
    for here, (opcode, *operands) in enumerate(lines):
        follow: tuple[int, ...] = (here + 1,)
        if opcode == "s_endpgm":
            follow = (END,)
        elif opcode == "s_branch":
            follow = (labels[operands[0]],)
        elif opcode.startswith("s_cbranch"):
            follow = (labels[operands[0]], here + 1)
        elif opcode.startswith(("s_setpc", "s_swappc", "s_call")):
            raise Unclear(f"control flow with {opcode} is not followed")
        code.append(Instruction(opcode, follow))
    return code
