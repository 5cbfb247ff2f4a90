"""What a kernel is compiled for. The number of time steps and the batch are not part of it: they are run-time arguments."""

from typing import Any, NamedTuple


class Specialization(NamedTuple):
    """The constants of a kernel, which it reads as ``spec.U`` and so on; beside them it is given the cell's functions.

    All of them: with a constant of its module, a kernel's key in Triton's cache depends on which was first used in a process.
    """

    G: int  # gates
    D: int  # directions
    N: int  # heads
    U: int  # units per head
    widths: tuple[int, ...]  # of the packs in which gates lie
    firsts: tuple[int, ...]  # for each pack, the gates before it
    per_step: tuple[bool, ...]  # for each mask, whether there is one per time step
    ragged: bool  # whether there are lengths
    carry: Any  # the Triton dtype of arithmetic and of carried state
    precision: str  # of float32 products: "ieee" or "tf32"
    BLOCK_B: int  # rows of a program's tile
    BLOCK_U: int  # and units
    BLOCK_K: int  # of a tiled product's inner dimension
    vector: int  # neighbouring units that a thread holds
    interpreted: bool  # by Triton's interpreter
