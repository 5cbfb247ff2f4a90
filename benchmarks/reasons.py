"""Why seqnets is slower than another in a case, as far as that is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.results import Figures


def why_slower(theirs: Figures, ours: Figures | None, machine: Mapping[str, Any]) -> str:
    """A sentence."""
    return "not known"
