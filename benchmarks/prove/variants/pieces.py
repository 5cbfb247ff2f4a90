"""Judges single changes of the resident kernels, which should save instructions, then times them beside torch.nn.

A piece replaces a device function before any kernel is generated, so each has processes of its own. All are for 16-bit
dtypes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.prove.work import Shape, check, compile_layer, time_layer
from benchmarks.prove.workers import Task


def _approximate() -> None:
    """Use the hardware's tanh for tanh and sigmoid. Its relative error, about 2^-11, is below bfloat16's rounding."""
    from benchmarks.prove.variants import device
    from seqnets.kernels.triton import math as kernel_math

    kernel_math.tanh, kernel_math.sigmoid = device.tanh, device.sigmoid


def _unmasked() -> None:
    """Leave out the select where gates are packed. It has no effect if a tile has no padding and no row ends early."""
    from benchmarks.prove.variants import device
    from seqnets.kernels.triton.schedules import step

    step.pack_gates = device.pack_gates


def _opaque() -> None:
    """Put a move between the step and the product.

    It keeps the compiler from giving the weight a layout with narrow loads.
    """
    from benchmarks.prove.variants import device
    from seqnets.kernels.triton.schedules import resident

    resident.product = device.product


PIECES: dict[str, tuple[Callable[[], None], ...]] = {
    "as it is": (),
    "approximate functions": (_approximate,),
    "unmasked gates": (_unmasked,),
    "opaque operand": (_opaque,),
    "all three": (_approximate, _unmasked, _opaque),
}
SHAPES = [Shape(cell, "bf16", 256, 64, H, H) for H in (128, 64) for cell in ("lstm", "gru")]
REHEARSED = [Shape("lstm", "bf16", 3, 2, 16, 16)]


def tasks(rehearsed: bool) -> list[Task]:
    return [Task(f"{name}: {shape}", run, (name, shape), 60, group=name) for name, shape in _planned(rehearsed)]


def compilations(rehearsed: bool) -> list[Task]:
    return [Task(f"judge {name}: {shape}", judge, (name, shape), 90, group=name) for name, shape in _planned(rehearsed)]


def _planned(rehearsed: bool) -> list[tuple[str, Shape]]:
    names = ("all three",) if rehearsed else tuple(PIECES)  # "all three" runs every line of the others
    return [(name, shape) for shape in (REHEARSED if rehearsed else SHAPES) for name in names]


def judge(name: str, shape: Shape) -> dict[str, Any]:
    """Judge the kernels with the piece `name`, and compile what `run` times."""
    _apply(name)
    return check(shape.cell, shape.dtype, "resident", shape.H, "train") | compile_layer(shape)


def run(name: str, shape: Shape) -> dict[str, Any]:
    _apply(name)
    return time_layer(shape)


def _apply(name: str) -> None:
    """Replace the functions of a piece. Doing so twice is harmless."""
    for change in PIECES[name]:
        change()
