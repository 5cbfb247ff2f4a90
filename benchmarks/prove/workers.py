"""Processes that do one task after another, and may crash, hang or spoil their GPU: each costs its own task alone.

A standard pool of processes is broken as a whole when one of them dies. Here a process that died, ran over its time or failed is
replaced: after an error of CUDA everything else in that process would fail too.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

SPAWN = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA


class Task(NamedTuple):
    """One call in a worker: `function`, a module-level function, of `arguments`."""

    name: str
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]
    seconds: float  # after which it is given up
    alone: bool = False  # in a process that has done nothing else, and will not


class Outcome(NamedTuple):
    """What became of a task."""

    task: Task
    status: str  # "done", "failed", "crashed" or "hung"
    seconds: float
    found: dict[str, Any]  # what the function returned
    why: str | None = None  # one line, where it was not done
    details: str | None = None  # a traceback, or the last lines of the process


class _Worker:
    def __init__(self, number: int, setup: Callable[[], None], folder: Path) -> None:
        self.output = folder / f"worker_{number}.log"
        self.connection, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(theirs, setup, str(self.output)), daemon=True)
        self.process.start()
        theirs.close()
        self.task: Task | None = None
        self.began = 0.0

    def begin(self, task: Task) -> None:
        self.task, self.began = task, time.monotonic()
        with contextlib.suppress(OSError):  # a process that died meanwhile: `poll` tells how
            self.connection.send(task)

    @property
    def due(self) -> float:
        assert self.task is not None
        return self.began + self.task.seconds

    def end(self) -> Outcome:
        """The outcome of the task, once the connection is ready or the task is over its time."""
        assert self.task is not None
        task, self.task = self.task, None
        took = time.monotonic() - self.began
        if not self.connection.poll():
            self.kill()
            return Outcome(task, "hung", took, {}, f"it was stopped after {took:.0f} s", self._last_lines())
        try:
            status, found, why, details = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return Outcome(task, "crashed", took, {}, _exit(self.process.exitcode), self._last_lines())
        return Outcome(task, status, took, found, why, details)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(10)
        self.connection.close()

    def _last_lines(self) -> str:
        with contextlib.suppress(OSError):
            return self.output.read_text(encoding="utf-8", errors="replace")[-3000:]
        return ""


def run(
    tasks: Iterable[Task], number: int, setup: Callable[[], None], folder: Path, until: float
) -> Generator[Outcome, None, None]:
    """Do tasks in `number` processes, the first ones first; yield outcomes as they come. What is not done by then is left out.

    Args:
        setup: called first in each process.
        folder: for what the processes print.
        until: `time.monotonic` at which all ends.
    """
    waiting = list(reversed(list(tasks)))
    idle: list[_Worker] = []
    busy: list[_Worker] = []
    started = 0
    try:
        while (waiting or busy) and time.monotonic() < until:
            while waiting and len(busy) < number:
                task = waiting.pop()
                if idle and not task.alone:
                    worker = idle.pop()
                else:
                    while idle:
                        idle.pop().kill()
                    worker, started = _Worker(started, setup, folder), started + 1
                worker.begin(task)
                busy.append(worker)
            timeout = min(until, *(worker.due for worker in busy)) - time.monotonic()
            ready = wait([worker.connection for worker in busy], max(0.0, timeout))
            for worker in list(busy):
                if worker.connection not in ready and (time.monotonic() < worker.due or worker.due > until):
                    continue
                outcome = worker.end()
                busy.remove(worker)
                if outcome.status == "done" and not outcome.task.alone:
                    idle.append(worker)
                else:
                    worker.kill()
                yield outcome
    finally:
        for worker in (*busy, *idle):
            worker.kill()


def _serve(connection: Connection, setup: Callable[[], None], output: str) -> None:
    import os
    import sys

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, sys.stdout.fileno())  # of what is written in C too
    os.dup2(file, sys.stderr.fileno())
    ready = False
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            if not ready:
                setup()
                ready = True
            answer: tuple[str, dict[str, Any], str | None, str | None] = (
                "done",
                task.function(*task.arguments),
                None,
                None,
            )
        except Exception as error:  # of whatever kind: it is the result
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
