"""What may be asked of whatever is drawn from a model, checked in one place."""

import math
from typing import Any

COOLEST = 1e-6  # a temperature of 0 is this: the likeliest alone


def check_drawing(length: Any, temperature: Any, seed: Any) -> None:
    """Raises ValueError, which says what is valid, where something cannot be drawn so."""
    for name, value, least, most in (("length", length, 1, math.inf), ("seed", seed, 0, 2**63 - 1)):
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            upto = "" if most == math.inf else f" and at most {most}"
            raise ValueError(f"{name} is {value!r}, but must be an integer of at least {least}{upto}")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
        raise ValueError(
            f"temperature is {temperature!r}, but must be a number, 0 (what is likeliest) at least: logits are divided by it"
        )
