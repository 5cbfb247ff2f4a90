"""Runs tasks in isolated processes, which may crash, hang or spoil their GPU context at the cost of one task only.

A standard process pool breaks as a whole when one of its processes dies. Here a process that died, took too long,
failed or says that it is spent is replaced: after a CUDA error, everything else in that process would fail too.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

SPAWN = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
SPENT = "spent"  # a function returns under this name whether its process must not be reused
TOLD = 3000  # characters that are kept of what a process printed


class Task(NamedTuple):
    """Describes one call in a worker: `function`, a module-level function, is called with `arguments`."""

    name: str
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]
    seconds: float  # after which the task is given up
    group: str = ""  # tasks of different groups share no process


class Outcome(NamedTuple):
    """Holds what became of a task."""

    task: Task
    status: str  # "done", "failed", "crashed" or "hung"
    seconds: float
    found: dict[str, Any]  # what the function returned
    why: str | None = None  # one line, where it was not done
    details: str | None = None  # a traceback, and the last of what the process printed meanwhile


class _Worker:
    def __init__(self, number: int, setup: Callable[[], None], folder: Path, group: str) -> None:
        self.group, self.output = group, folder / f"worker_{number}.log"
        self.connection, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(theirs, setup, str(self.output)), daemon=True)
        # Interrupts are for the parent only, even while the process still imports. The process unblocks them once it
        # ignores them.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        self.task: Task | None = None
        self.began, self.printed, self.is_spent = 0.0, 0, False

    def begin(self, task: Task) -> None:
        self.task, self.began = task, time.monotonic()
        self.printed = self.output.stat().st_size if self.output.exists() else 0
        with contextlib.suppress(OSError):  # the process died meanwhile, which `end` reports
            self.connection.send(task)

    @property
    def due(self) -> float:
        assert self.task is not None
        return self.began + self.task.seconds

    def end(self) -> Outcome:
        """Return the outcome of the task, once the connection is ready or the task has run out of time."""
        assert self.task is not None
        task, self.task = self.task, None
        took = time.monotonic() - self.began
        if not self.connection.poll():
            self.process.kill()
            self.is_spent = True
            return Outcome(task, "hung", took, {}, f"it was stopped after {took:.0f} s", self._last_lines())
        try:
            status, found, why, details = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            self.is_spent = True
            return Outcome(task, "crashed", took, {}, _exit(self.process.exitcode), self._last_lines())
        self.is_spent = bool(found.pop(SPENT, False)) or status != "done"
        return Outcome(task, status, took, found, why, "\n".join(filter(None, (details, self._last_lines()))) or None)

    def _last_lines(self) -> str:
        """Return the last of what was printed since the task began."""
        with contextlib.suppress(OSError):
            return self.output.read_bytes()[self.printed :].decode(errors="replace").strip()[-TOLD:]
        return ""


def run(
    tasks: Iterable[Task], number: int, setup: Callable[[], None], folder: Path, until: float
) -> Generator[Outcome, None, None]:
    """Run tasks in up to `number` processes, in order, and yield outcomes as they come.

    Args:
        tasks: The tasks, in order.
        number: The number of tasks that run at once.
        setup: Called first in each process.
        folder: The folder for what the processes print.
        until: The `time.monotonic` at which all processes end. Tasks that are not done by then have no outcome.
    """
    waiting = list(reversed(list(tasks)))
    idle: dict[str, list[_Worker]] = {}
    busy: list[_Worker] = []
    started = 0
    try:
        while (waiting or busy) and time.monotonic() < until:
            while waiting and len(busy) < number:
                task = waiting.pop()
                if idle.get(task.group):
                    worker = idle[task.group].pop()
                else:
                    worker, started = _Worker(started, setup, folder, task.group), started + 1
                worker.begin(task)
                busy.append(worker)
            timeout = min(until, *(worker.due for worker in busy)) - time.monotonic()
            ready = wait([worker.connection for worker in busy], max(0.0, timeout))
            for worker in list(busy):
                if worker.connection not in ready and (time.monotonic() < worker.due or worker.due > until):
                    continue
                outcome = worker.end()
                busy.remove(worker)
                if worker.is_spent:
                    _end([worker])
                else:
                    idle.setdefault(worker.group, []).append(worker)
                yield outcome
    finally:
        _end([*busy, *(worker for workers in idle.values() for worker in workers)])


def _end(workers: list[_Worker]) -> None:
    """Kill processes. All are killed before any is waited for, because releasing a GPU takes a while."""
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join(10)
        worker.connection.close()


def _serve(connection: Connection, setup: Callable[[], None], output: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, sys.stdout.fileno())  # also redirects what C code writes
    os.dup2(file, sys.stderr.fileno())
    ready = False
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        answer: tuple[str, dict[str, Any], str | None, str | None]
        try:
            if not ready:
                setup()
                ready = True
            answer = "done", task.function(*task.arguments), None, None
        except Exception as error:  # any error is a result
            lines = [line for line in str(error).splitlines() if line.strip()]
            why = f"{type(error).__name__}: {lines[0] if lines else ''}"
            answer = "failed", {}, why[:500], traceback.format_exc()[-6000:]
        connection.send(answer)
        if answer[0] == "failed":
            return


def _exit(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit status {code}"
