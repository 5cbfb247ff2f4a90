"""Lets contenders take turns, each in its own process, and says in a sentence what became of one that cannot go on."""

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

PROCESSES = 3  # of each contender in which memory is measured

Answer = dict[str, Any]


class Gone(Exception):
    """The process of a contender died or was ended; the message says why, `status` what that counts as."""

    def __init__(self, why: str, status: str = "failed") -> None:
        super().__init__(why)
        self.status = status


class Worker:
    """The process of one contender (benchmarks/worker.py), started when first asked and anew after it has died.

    It is stopped between orders: threads that wait for work by spinning, as those of most libraries do for a while, would take a
    core from the next.
    """

    def __init__(self, settings: Settings, python: str, log: Path) -> None:
        self.settings, self.python, self.log = settings, python, log
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, order: str, limit: float, **about: Any) -> Answer:
        """The answer to an order.

        Raises:
            Gone: there was none within so many seconds, or the process died.
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
        """Of a process that died; its log was that long when it got its last order."""
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
    """To it and to what it started, such as compilers."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


class Limits(NamedTuple):
    """Seconds."""

    prepare: float  # to compile and do the work for the first time
    run: float  # a turn


class Conductor:
    """The contenders of a run. Use as a context: its end ends their processes.

    Args:
        settings: of each contender, in the order of their turns.
        pythons: of contenders that live in another environment, the interpreter.
        logs: a folder for what they write on standard error.
        seconds: of measuring, for each contender of a case.
        least_turns: in which every contender is measured, however long that takes.
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

    def __enter__(self) -> Conductor:
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self.workers.values():
            worker.stop()
        self._folder.cleanup()

    def introduce(self) -> dict[str, Answer]:
        """Versions of each contender, or why it is absent; those are asked no more."""
        found: dict[str, Answer] = {}
        for name, worker in list(self.workers.items()):
            try:
                found[name] = worker.ask("hello", self.limits.prepare)
            except Gone as error:
                found[name] = {"absent": str(error)}
            if "why" in found[name]:  # an error of its own, as it was imported
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
        """Prepare all, judge what they give, then time in turns those that are right: samples are seconds of one call, by turn.

        Args:
            calls: of a turn; None: as many as take a tenth of the time.
            turns: None: as many as there is time for.
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
        """In new processes, `PROCESSES` each, after a small case: what libraries load and compile once is not the case's."""
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
                first.pop("seconds", None)  # no turn of a measurement
                return {"status": "measured", **found} | first

            found = self._guarded(name, work)
            if before is not None and found["status"] == "measured":
                found["peak_bytes"] = before["peak_bytes"] + found["peak_bytes"]
            answers[name] = found
            self.workers[name].stop()
        return answers

    def ask(self, name: str, order: str, **about: Any) -> Answer:
        """One order to one contender."""
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
        except Exception as error:  # whatever a contender may have written
            verdict = {
                "status": "wrong",
                "why": f"what it gave cannot be judged: {type(error).__name__}: {error}"[:300],
            }
        return answer | verdict

    def _warm_up(self, worker: Worker, calls: dict[str, int], name: str) -> Answer:
        """How many calls make a turn: as many as take a tenth of the time for measuring."""
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
