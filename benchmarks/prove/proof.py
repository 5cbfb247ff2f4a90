"""Runs a proof: knows what is left to do and how much time is left, and keeps the results after every item."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.prove import gpu, suite
from benchmarks.prove.items import Phase
from benchmarks.prove.record import BROKEN, Record
from benchmarks.prove.workers import run
from seqnets.errors import BackendError

ENOUGH = 8  # the run gives up if its first items, this many, all go wrong


class Proof:
    """Runs one call of the command on one folder.

    Args:
        record: The results of the folder.
        phases: What is to be proven, in order; items that `record` knows are skipped.
        command: The command line, to record it.
        minutes: The time of the run.
        tell: Called with a line for each item, as its result comes.
        began: The `time.monotonic` at which the time began to count.
    """

    def __init__(
        self,
        record: Record,
        phases: Sequence[Phase],
        command: list[str],
        minutes: float,
        tell: Callable[[str], None],
        began: float,
    ) -> None:
        self.record, self.phases, self.tell, self.began = record, phases, tell, began
        self.seconds = 60 * minutes
        self.todo = {phase.name: [task for task in phase.tasks if not record.knows(task.name)] for phase in phases}
        self.told: dict[str, Any] = {"command": command, **gpu.now(), "minutes": minutes, "seconds": 0.0}
        if any(self.todo.values()) or not record.results["runs"]:
            record.results["runs"].append(self.told)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def run(self, jobs: int, setup: Callable[[], None], share: float) -> None:
        """Run all phases, one after the other, in a share of the time.

        Args:
            jobs: The number of processes in parallel phases.
            setup: Called first in each process.
            share: The share of the run's time, from 0 to 1.

        Raises:
            BackendError: The first items all went wrong, so the rest would too.
        """
        self.keep()
        outcomes_so_far: list[str] = []
        with tempfile.TemporaryDirectory(prefix="seqnets-prove-", ignore_cleanup_errors=True) as logs:
            for phase in self.phases:
                todo, end = self.todo[phase.name], self.began + self.seconds * share * phase.share
                with closing(run(list(todo), jobs if phase.parallel else 1, setup, Path(logs), end)) as outcomes:
                    for outcome in outcomes:
                        todo.remove(outcome.task)
                        item = self.record.add(phase.name, outcome)
                        self.keep()
                        self._tell(item)
                        outcomes_so_far.append(item["status"])
                        if len(outcomes_so_far) == ENOUGH and set(outcomes_so_far) <= set(BROKEN):
                            raise BackendError(f"the first {ENOUGH} items all went wrong, the last by: {item['why']}")

    def run_tests(self) -> None:
        """Run the tests for GPUs in the time that is left."""
        left = max(0.0, self.seconds - self.elapsed)
        self.tell(f"{self.elapsed:6.1f} s  tests/gpu, at most {left:.0f} s")
        self.record.results["tests"] = suite.run_tests(left, self.record.results["rehearsed"])

    def keep(self) -> None:
        self.record.results["not_reached"] = [task.name for tasks in self.todo.values() for task in tasks]
        self.told["seconds"] = round(self.elapsed, 1)
        self.record.write()

    def conclude(self) -> None:
        self.told["at_end"] = gpu.now()
        self.keep()

    def _tell(self, item: dict[str, Any]) -> None:
        found = item["found"]
        told = f"{self.elapsed:6.1f} s  {item['name']}: {item['status']}"
        if found.get("agrees") is not None and found["error_over_allowed"] is not None:
            told += f", error {found['error_over_allowed']:.2g} of what is allowed"
        if found.get("compiled"):
            told += (
                f", {found['compiled']} kernel{'s' * (found['compiled'] > 1)} compiled in "
                f"{found['compile_seconds']:.1f} s"
            )
        self.tell(told + (f": {item['why']}" if item["why"] else ""))
