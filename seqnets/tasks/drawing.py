"""What may be asked of whatever is drawn from a model, checked in one place."""

import math
from typing import Any

from seqnets.data.in_memory import check_integers

COOLEST = 1e-6  # a temperature of 0 is this: the likeliest alone


def check_drawing(length: Any, temperature: Any, seed: Any) -> None:
    """Raises ValueError, which says what is valid, where something cannot be drawn so."""
    check_integers(length=(length, 1), seed=(seed, 0))
    if seed >= 2**63:
        raise ValueError(f"seed is {seed!r}, but must be below 2**63")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
        raise ValueError(
            f"temperature is {temperature!r}, but must be a number, 0 (what is likeliest) at least: logits are divided by it"
        )
