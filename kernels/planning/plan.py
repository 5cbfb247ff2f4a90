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

    @property
    def options(self) -> dict[str, int]:
        """As Triton's launcher and compiler take them."""
        return {"num_warps": self.warps, "num_stages": self.stages}
