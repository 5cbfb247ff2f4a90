"""Defines what a kernel is compiled for.

The number of time steps and the batch size are not part of it: they are run-time arguments.
"""

from typing import Any, NamedTuple


class Specialization(NamedTuple):
    """Holds all constants of a kernel, except for the cell's functions, which are passed beside it.

    A kernel reads them as ``spec.U`` and so on. It must not read a constant of its module: its key in Triton's cache
    would then depend on which kernel was used first in the process.
    """

    G: int  # gates
    D: int  # directions
    N: int  # heads
    U: int  # units per head
    widths: tuple[int, ...]  # of the packs in which gates are stored
    firsts: tuple[int, ...]  # for each pack, the number of gates before it
    per_step: tuple[bool, ...]  # for each mask, whether there is one per time step
    ragged: bool  # whether there are lengths
    carry: Any  # the Triton dtype of arithmetic and of carried state
    precision: str  # of float32 products: "ieee" or "tf32"
    BLOCK_B: int  # rows of a program's tile
    BLOCK_U: int  # units of a program's tile
    BLOCK_K: int  # tile size of a tiled product's inner dimension
    vector: int  # neighboring units that a thread holds
    interpreted: bool  # whether Triton's interpreter runs the kernel
