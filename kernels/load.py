"""Measures how busy other processes keep the machine."""

from __future__ import annotations

import os
import time
from pathlib import Path


class Load:
    """Measures the load of other processes since its creation. Only works on Linux; elsewhere the load is always 0."""

    def __init__(self) -> None:
        self._began = _seconds()

    def of_others(self) -> float:
        """Return the share (0 to 1) of the time of all cores that other processes and other guests of the host took."""
        now = _seconds()
        if now is None or self._began is None:
            return 0.0
        total, busy, own = (after - before for after, before in zip(now, self._began, strict=True))
        return max(0.0, busy - own) / total if total > 0 else 0.0


def _seconds() -> tuple[float, float, float] | None:
    """Return the seconds that all cores had, were busy, and spent on this process; None if that cannot be read."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)[1:9]
        user, nice, system, idle, waiting, *rest = (int(field) / os.sysconf("SC_CLK_TCK") for field in fields)
    except (OSError, ValueError):
        return None
    busy = user + nice + system + sum(rest)
    return busy + idle + waiting, busy, time.process_time()
