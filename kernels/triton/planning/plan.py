"""What is decided before a launch."""

from __future__ import annotations

from typing import NamedTuple


class Plan(NamedTuple):
    """A schedule and its tile, for one pass over one recurrence."""

    schedule: str  # "resident" or "tiled"
    block_b: int  # rows of a program's tile
    block_u: int  # its units; all of a head's where resident
    block_k: int  # inner dimension of a tiled product
    warps: int
    stages: int  # of the compiler's software pipeline
    precision: str  # of float32 products: "ieee" or "tf32"
    max_registers: int | None = None  # per thread; None: as many as the compiler thinks good
    why: str = ""  # a clause: why this schedule

    @property
    def options(self) -> dict[str, int]:
        """As Triton's launcher and compiler take them."""
        # a·b + c in one instruction, and rounded once: said, as versions of Triton differ in what they assume
        options = {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}
        if self.max_registers is not None:
            options["maxnreg"] = self.max_registers
        return options
