"""Lists what is proven, the most valuable first, because a run stops when its time is over."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.prove import variants
from benchmarks.prove.work import CELLS, DTYPES, MODES, Shape, check, compile_layer, time_layer
from benchmarks.prove.workers import Task

SCHEDULES = ("resident", "tiled")
SIZES = {"lstm": 64, "gru": 100, "light": 70}  # H of the checked cells; the last two are no powers of two

# From what users train to what bounds the kernels
SHAPES = [
    *(Shape("lstm", "bf16", 256, 64, H, H) for H in (128, 512, 64, 256, 1024)),
    *(Shape("gru", "bf16", 256, 64, H, H) for H in (128, 512)),
    Shape("lstm", "tf32", 200, 32, 128, 64, layers=2, bidirectional=True),  # imdb_bilstm, with a second layer
    *(Shape("lstm", "tf32", 256, 64, H, H) for H in (128, 512)),
    Shape("lstm", "fp16", 256, 64, 512, 512),  # where cuDNN has its persistent kernel
    *(Shape("lstm", "bf16", 256, B, 128, 128) for B in (1, 256)),
    Shape("light", "bf16", 256, 64, 128, 128),
    *(Shape("lstm", "bf16", 256, B, 512, 512) for B in (1, 256)),
    *(Shape("gru", "bf16", 256, 64, H, H) for H in (64, 256, 1024)),
    Shape("gru", "tf32", 256, 64, 128, 128),
    *(Shape("lstm", "bf16", 256, B, H, H) for H in (64, 256, 1024) for B in (1, 256)),
    *(Shape("gru", "bf16", 256, B, H, H) for H in (128, 512) for B in (1, 256)),
]
REHEARSED = [Shape("lstm", "bf16", 3, 2, 16, 16), Shape("light", "tf32", 3, 2, 16, 16)]

FIRST = 12  # checks that come before compilations for later: all cells and schedules in one dtype, in both modes


class Phase(NamedTuple):
    name: str
    tasks: list[Task]
    parallel: bool
    share: float  # of the run's time that is over when it ends


def phases(rehearsed: bool) -> list[Phase]:
    """Return the phases, in order. A rehearsal has few and small items, which run every line that the others run."""
    shapes = REHEARSED if rehearsed else SHAPES
    checks = _checks(rehearsed)
    # what is compiled does not depend on these sizes
    kernels = dict.fromkeys(shape._replace(T=1, B=1, I=1, layers=1) for shape in shapes)
    compiled = [Task(f"compile {shape.kernels}", compile_layer, (shape,), 90) for shape in kernels]
    # the first checks are in bfloat16; compilations for the other phases run beside the other checks
    first = [*checks[:FIRST], *compiled, *checks[FIRST:], *variants.compilations(rehearsed)]
    return [
        Phase("checks", first, parallel=True, share=0.45),
        Phase(
            "times", [Task(f"time {shape}", time_layer, (shape,), 45) for shape in shapes], parallel=False, share=0.75
        ),
        Phase("variants", variants.tasks(rehearsed), parallel=False, share=1),
    ]


def _checks(rehearsed: bool) -> list[Task]:
    """Return the checks. In each dtype inference comes first: its kernel is smaller, and users meet it first."""
    named = [
        (cell, dtype, schedule, 16 if rehearsed else SIZES[cell], mode)
        for dtype in DTYPES
        for mode in MODES
        for schedule in SCHEDULES
        for cell in CELLS
    ]
    if rehearsed:
        named = [
            (c, d, s, h, m)
            for c, d, s, h, m in named
            if (c, d, m) in (("lstm", "bf16", "infer"), ("gru", "tf32", "train"))
        ]
    return [
        Task(f"check {cell} {dtype} {schedule} H={H} {mode}", check, (cell, dtype, schedule, H, mode), 120)
        for cell, dtype, schedule, H, mode in named
    ]
