"""Defines plans, which are decided before a launch."""

from __future__ import annotations

from typing import NamedTuple


class Plan(NamedTuple):
    """Holds a schedule and its tile for one pass over one recurrence."""

    schedule: str  # "resident" or "tiled"
    block_b: int  # rows of a program's tile
    block_u: int  # units of a program's tile; all units of a head where resident
    block_k: int  # tile size of a tiled product's inner dimension
    warps: int
    stages: int  # of the compiler's software pipeline
    precision: str  # of float32 products: "ieee" or "tf32"
    max_registers: int | None = None  # per thread; None: the compiler decides
    why: str = ""  # a clause that says why this schedule was chosen

    @property
    def options(self) -> dict[str, int]:
        """Return the options in the form that Triton's launcher and compiler take."""
        # fusion computes a·b + c in one instruction, rounded once; explicit, as defaults differ between Triton versions
        options = {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}
        if self.max_registers is not None:
            options["maxnreg"] = self.max_registers
        return options
