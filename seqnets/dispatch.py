"""Selects the backend that runs a problem, and explains the choice.

The backend is requested by, in order of precedence: the layer's ``backend=``, `use_backend`, the environment variable
``SEQNETS_BACKEND``. The default is ``auto``. It takes the first of `BACKENDS` that can serve the call, but skips those
that run only on request (``only_if_asked``). Where two backends compete on the CPU, it takes the faster one
(`autoselect`). A backend that is requested by name either serves the call or raises an error with its reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from seqnets.backends import BACKENDS, Backend, autoselect
from seqnets.errors import BackendError
from seqnets.overrides import override
from seqnets.recurrence import Problem, Result
from seqnets.signature import signature

ENVIRONMENT_VARIABLE = "SEQNETS_BACKEND"

# A plain global, as torch.compile(fullgraph=True) cannot trace ContextVar.get. The innermost `use_backend` is last.
_overrides: list[list[str]] = []

# The backend of each kind of call, by what was requested and by the call's signature
_chosen: dict[Any, Backend] = {}
MOST = 4096  # calls that differ only in their number of time steps are of different kinds


@dataclass(frozen=True)
class Explanation:
    """Describes which backend the dispatch selects for a call, and why; ``str()`` formats it for reading.

    Attributes:
        backend: the backend that will run, or None if the requested one cannot serve and the call would raise.
        reasons: for each backend, a clause that says why it cannot serve the call or, with ``auto``, why it is passed
            over; None if it can serve.
        asked: the requested backend, and where it was requested.
        note: what running the backend will cost, or None if there is nothing worth knowing.
    """

    backend: str | None
    reasons: dict[str, str | None]
    asked: str
    note: str | None = None

    def __str__(self) -> str:
        lines = [
            f"{self.backend} runs this call" if self.backend else "this call would raise",
            f"  asked for: {self.asked}",
        ]
        lines += [f"  {name}: {'can serve' if why is None else 'no, ' + why}" for name, why in self.reasons.items()]
        return "\n".join(lines + ([f"  note: {self.note}"] if self.note else []))


def check_backend(name: str) -> str:
    """Return `name` if it is ``"auto"`` or the name of a backend.

    Raises:
        BackendError: If it is neither. The message lists the choices.
    """
    if name != "auto" and name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; choose from auto, {', '.join(BACKENDS)}")
    return name


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run layers on the backend `name` within a ``with`` block or a decorated function.

    It applies to every layer without a ``backend=`` of its own, in all threads of the process. ``"auto"`` is valid too.

    Raises:
        BackendError: If there is no such backend.
    """
    check_backend(name)
    with override(_overrides, name):
        yield


def requested(layer_backend: str | None) -> tuple[str, str]:
    """Return the requested backend, and a phrase that says where it was requested."""
    if layer_backend is not None:
        return check_backend(layer_backend), "the layer's backend="
    if _overrides:
        return _overrides[-1][0], "use_backend"
    name = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    return (check_backend(name), ENVIRONMENT_VARIABLE) if name else ("auto", "default")


def why_not(backend: Backend, problem: Problem, auto: bool) -> str | None:
    """Return why the backend cannot serve or, with `auto`, should not, as a clause; None if it can."""
    return backend.why_not(problem) or (why_passed_over(backend, problem) if auto else None)


def why_passed_over(backend: Backend, problem: Problem) -> str | None:
    """Return why ``auto`` should not take the backend even if it can serve, as a clause, or None."""
    only_if_asked = getattr(backend, "only_if_asked", None)
    return (only_if_asked(problem) if only_if_asked else None) or autoselect.why_slower(backend, problem)


def dispatch(problem: Problem, backend: str | None = None) -> Result:
    """Run the problem on the requested backend.

    Raises:
        BackendError: If a backend that was requested by name cannot serve. The message says why, and which can.
    """
    name, _ = requested(backend)
    known = signature(problem)
    chosen = None if known is None else _chosen.get((name, known))
    if chosen is None:
        chosen = _choose(problem, name)
        if known is not None:
            if len(_chosen) >= MOST:
                _chosen.clear()
            _chosen[name, known] = chosen
    return chosen.run(problem)


def _choose(problem: Problem, name: str) -> Backend:
    """Return the backend that runs the problem: the requested one, or the one that ``auto`` takes."""
    if name == "auto":
        for candidate in BACKENDS.values():
            # why_not comes second, because it may take long to find out whether a backend can serve
            if why_passed_over(candidate, problem) is None and candidate.why_not(problem) is None:
                return candidate
    reason = BACKENDS[name].why_not(problem)
    if reason is None:
        return BACKENDS[name]
    others = [other for other, module in BACKENDS.items() if module.why_not(problem) is None]
    raise BackendError(f"backend {name!r} cannot serve this call: {reason}. These can: auto, {', '.join(others)}")


def forget_choices() -> None:
    """Take all decisions anew, because something has changed that they depend on beside the call."""
    _chosen.clear()


def explain_problem(problem: Problem, backend: str | None = None) -> Explanation:
    name, source = requested(backend)
    reasons = {candidate: why_not(module, problem, name == "auto") for candidate, module in BACKENDS.items()}
    serving = [candidate for candidate, why in reasons.items() if why is None]
    chosen = serving[0] if name == "auto" else name if name in serving else None
    note = getattr(BACKENDS[chosen], "note", None) if chosen else None
    return Explanation(chosen, reasons, f"{name} ({source})", note(problem) if note else None)
