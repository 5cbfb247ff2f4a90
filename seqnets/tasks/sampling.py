"""Checks the options of sampling from a model, in one place for all tasks."""

import math
from typing import Any

from seqnets.data.in_memory import check_integers

COOLEST = 1e-6  # stands in for a temperature of 0, which takes the likeliest alone


def check_sampling(length: Any, temperature: Any, seed: Any) -> None:
    """Check the options of sampling from a model.

    Raises:
        ValueError: If an option is invalid. The message says what is valid.
    """
    check_integers(length=(length, 1), seed=(seed, 0))
    if seed >= 2**63:
        raise ValueError(f"seed is {seed!r}, but must be below 2**63")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
        raise ValueError(
            f"temperature is {temperature!r}, but must be a number, "
            "0 (what is likeliest) at least: logits are divided by it"
        )
