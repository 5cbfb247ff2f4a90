"""Runs a pool of workers: contenders take turns, each in its own process, and a failure is told in a sentence."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.cases import Case
from benchmarks.contenders import Settings

ROOT = Path(__file__).parents[1]

PROCESSES = 3  # per contender, to measure memory in

Answer = dict[str, Any]


class Gone(Exception):
    """Raised when a contender's process died or was killed; the message says why, `status` what it counts as."""

    def __init__(self, why: str, status: str = "failed") -> None:
        super().__init__(why)
        self.status = status


class Worker:
    """Holds the process of one contender (benchmarks/worker.py).

    The process starts at the first order, and again at the first order after it died. It is stopped between orders.
    Otherwise its threads, which in most libraries spin for a while when they wait for work, would take a core from the
    next contender.
    """

    def __init__(self, settings: Settings, python: str, log: Path) -> None:
        self.settings, self.python, self.log = settings, python, log
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, order: str, limit: float, **about: Any) -> Answer:
        """Send an order to the process and return the answer.

        Args:
            order: The name of a method of `benchmarks.worker.Contender`.
            limit: Seconds after which the process is killed.
            about: Arguments of the order, in JSON types.

        Raises:
            Gone: There was no answer within the limit, or the process died.
        """
        process = self._process or self._start()
        assert process.stdin and process.stdout
        _signal(process, signal.SIGCONT)
        try:
            process.stdin.write(json.dumps({"do": order, **about}).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._epitaph(0) from None
        answer, logged = b"", self.log.stat().st_size
        end = time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not answer.endswith(b"\n"):
                if not selector.select(max(0.0, end - time.monotonic())):
                    self.stop()
                    raise Gone(f"gave up after {limit:g} s: {order} took longer")
                part = os.read(process.stdout.fileno(), 1 << 16)
                if not part:
                    raise self._epitaph(logged)
                answer += part
        _signal(process, signal.SIGSTOP)
        return json.loads(answer)

    def stop(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin and process.stdout
        _signal(process, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()

    def _start(self) -> subprocess.Popen[bytes]:
        threads = str(self.settings.threads)
        environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        command = [self.python, "-m", "benchmarks.worker", json.dumps(self.settings._asdict())]
        with self.log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, env=environment,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise Gone(f"{self.python} cannot be started: {error.strerror}") from error
        return self._process

    def _epitaph(self, logged: int) -> Gone:
        """Return the error for a process that died; `logged` is the size of its log when it got its last order."""
        assert self._process is not None
        code = self._process.wait()
        self.stop()
        if code == -signal.SIGKILL:
            return Gone("killed, as the system does with a process that takes all the memory", "out of memory")
        words = self.log.read_bytes()[logged:].decode(errors="replace")
        told = [line for line in words.splitlines() if line.strip()]
        last = f"; its last words: {told[-1].strip()[:200]}" if told else ""
        return Gone(f"its process died ({signal.Signals(-code).name if code < 0 else f'exit status {code}'}){last}")


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and to what it started, such as compilers."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


class Limits(NamedTuple):
    """Holds time limits, in seconds."""

    prepare: float  # to compile, and to do the work for the first time
    run: float  # for a turn


class WorkerPool:
    """Runs the contenders of a run. Use it as a context manager, which ends their processes on exit.

    Args:
        settings: The settings of each contender, in the order of their turns.
        pythons: The interpreters of contenders that live in another environment.
        logs: A folder for what the contenders write to standard error.
        seconds: Seconds of measurement for each contender of a case.
        least_turns: The number of turns that every contender gets, however long they take.
        limits: Time limits of single orders.
    """

    def __init__(
        self,
        settings: Mapping[str, Settings],
        pythons: Mapping[str, str],
        logs: Path,
        seconds: float,
        least_turns: int,
        limits: Limits,
    ) -> None:
        logs.mkdir(exist_ok=True)
        self.workers = {n: Worker(s, pythons.get(n, sys.executable), logs / f"{n}.log") for n, s in settings.items()}
        self.seconds, self.least_turns, self.limits = seconds, least_turns, limits
        self._folder = tempfile.TemporaryDirectory(prefix="benchmarks-")

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self.workers.values():
            worker.stop()
        self._folder.cleanup()

    def introduce(self) -> dict[str, Answer]:
        """Return the versions of each contender, or why it is absent. Absent contenders get no further orders."""
        found: dict[str, Answer] = {}
        for name, worker in list(self.workers.items()):
            try:
                found[name] = worker.ask("hello", self.limits.prepare)
            except Gone as error:
                found[name] = {"absent": str(error)}
            if "why" in found[name]:  # its import raised something other than ImportError
                found[name] = {"absent": found[name]["why"]}
            if "absent" in found[name]:
                del self.workers[name]
                worker.stop()
        return found

    def measure(
        self,
        case: Case,
        names: list[str],
        arrays: Mapping[str, np.ndarray],
        judge: Callable[[dict[str, np.ndarray]], Answer],
        say: Callable[[str], None],
        calls: int | None = None,
        turns: int | None = None,
    ) -> dict[str, Answer]:
        """Prepare all contenders, judge their outputs, then time the right ones in turns.

        Args:
            case: The work.
            names: The contenders that take part.
            arrays: The inputs of the case.
            judge: Judges outputs; its answer has a status only if they are wrong.
            say: Is told what is being done.
            calls: Calls per turn; None: as many as take a tenth of the measurement time.
            turns: The number of turns; None: as many as there is time for, and at least `least_turns`.

        Returns:
            An answer for each contender; its ``seconds`` are those of one call, turn by turn.
        """
        self._write(arrays)
        answers: dict[str, Answer] = {}
        for name in names:
            say(f"{name} prepares")
            answers[name] = self._guarded(name, lambda w: self._begin(w, case, judge))
        ready = [name for name in names if answers[name]["status"] == "ready"]
        of_a_turn: dict[str, int] = {}
        for name in ready:
            say(f"{name} warms up")
            answers[name] |= self._guarded(name, lambda w, n=name: self._warm_up(w, of_a_turn, n))  # type: ignore[misc]
        of_a_turn = of_a_turn if calls is None else dict.fromkeys(ready, calls)
        samples: dict[str, list[float]] = {name: [] for name in ready}
        end = time.monotonic() + self.seconds * len(ready)
        for turn in itertools.count(1):
            say(f"turn {turn}")
            running = [name for name in ready if answers[name]["status"] == "ready"]
            for name in running:
                answers[name] |= self._guarded(name, lambda w, n=name: self._turn(w, of_a_turn[n], samples[n]))  # type: ignore[misc]
            enough = turn >= turns if turns else turn >= self.least_turns and time.monotonic() > end
            if enough or not running:
                break
        for name in ready:
            if answers[name]["status"] == "ready":
                answers[name] |= {"status": "measured", "calls": of_a_turn[name], "seconds": samples[name]}
                launches = self._guarded(name, lambda w: w.ask("launches", self.limits.run))
                answers[name]["notes"] |= launches.get("notes", {})
        if calls is None:
            self._forget(names)
        return answers

    def measure_memory(
        self,
        case: Case,
        small: Case,
        names: list[str],
        arrays: Mapping[str, np.ndarray],
        small_arrays: Mapping[str, np.ndarray],
        judge: Callable[[dict[str, np.ndarray]], Answer],
        say: Callable[[str], None],
    ) -> dict[str, Answer]:
        """Measure memory in `PROCESSES` new processes per contender, each after a small case.

        The small case is there because what libraries load and compile once does not belong to the case.
        """
        answers: dict[str, Answer] = {}
        for name, _ in itertools.product(names, range(PROCESSES)):
            before = answers.get(name)
            if before is not None and before["status"] != "measured":
                continue
            say(f"{name} in a new process")
            self.workers[name].stop()

            def work(worker: Worker) -> Answer:
                self._write(small_arrays)
                warm = self._begin(worker, small, lambda outputs: {})
                if warm["status"] != "ready":
                    return warm
                self._write(arrays)
                ready = self._prepare(worker, case)
                if ready["status"] != "ready":
                    return ready
                found = worker.ask("memory", self.limits.run, calls=3)
                if "why" in found:
                    return found
                found["peak_bytes"] = [found["peak_bytes"]]
                first = self._first(worker, judge)
                first.pop("seconds", None)  # it is not the time of a turn
                return {"status": "measured", **found} | first

            found = self._guarded(name, work)
            if before is not None and found["status"] == "measured":
                found["peak_bytes"] = before["peak_bytes"] + found["peak_bytes"]
            answers[name] = found
            self.workers[name].stop()
        return answers

    def ask(self, name: str, order: str, **about: Any) -> Answer:
        """Send one order to one contender and return the answer, or the status of a process that died."""
        return self._guarded(name, lambda worker: worker.ask(order, self.limits.run, **about))

    def _guarded(self, name: str, work: Callable[[Worker], Answer]) -> Answer:
        try:
            return work(self.workers[name])
        except Gone as error:
            return {"status": error.status, "why": str(error)}

    def _begin(self, worker: Worker, case: Case, judge: Callable[[dict[str, np.ndarray]], Answer]) -> Answer:
        ready = self._prepare(worker, case)
        if ready["status"] != "ready":
            return ready
        first = self._first(worker, judge)
        return {"status": "ready", "prepare_seconds": ready["seconds"] + first.pop("seconds", 0.0)} | first

    def _prepare(self, worker: Worker, case: Case) -> Answer:
        return worker.ask("prepare", self.limits.prepare, case=case.to_dict(), arrays=str(self._path("arrays")))

    def _first(self, worker: Worker, judge: Callable[[dict[str, np.ndarray]], Answer]) -> Answer:
        answer = worker.ask("first", self.limits.prepare, outputs=str(self._path("outputs")))
        if "seconds" not in answer:
            return answer
        try:
            with np.load(self._path("outputs")) as outputs:
                verdict = judge(dict(outputs))
        except Exception as error:  # a contender may have written anything
            verdict = {
                "status": "wrong",
                "why": f"what it gave cannot be judged: {type(error).__name__}: {error}"[:300],
            }
        return answer | verdict

    def _warm_up(self, worker: Worker, calls: dict[str, int], name: str) -> Answer:
        """Set in `calls` how many calls make a turn: as many as take a tenth of the measurement time."""
        answer = worker.ask("run", self.limits.run, calls=1)
        made = 1
        if answer.get("seconds", self.seconds) < self.seconds:
            answer, made = worker.ask("run", self.limits.run, calls=3), 3
        if "why" in answer:
            return answer
        calls[name] = max(1, int(self.seconds / 10 / max(answer["seconds"] / made, 1e-9)))
        return {}

    def _turn(self, worker: Worker, calls: int, samples: list[float]) -> Answer:
        answer = worker.ask("run", self.limits.run, calls=calls)
        if "why" in answer:
            return answer
        samples.append(answer["seconds"] / calls)
        return {}

    def _write(self, arrays: Mapping[str, np.ndarray]) -> None:
        np.savez(self._path("arrays"), **arrays)  # type: ignore[arg-type]

    def _path(self, what: str) -> Path:
        return Path(self._folder.name, f"{what}.npz")

    def _forget(self, names: list[str]) -> None:
        for name in names:
            self._guarded(name, lambda w: w.ask("forget", self.limits.run))
