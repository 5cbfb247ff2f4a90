"""Which backend runs a problem, and why.

Strongest first: the layer's ``backend=``, `use_backend`, the environment variable ``SEQNETS_BACKEND``, ``auto``.
``auto`` takes the first of `BACKENDS` that can serve and does not wait to be asked (``only_if_asked``), and of two that
compete on the CPU the faster (`race`); a backend asked for by name serves or raises with its reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from seqnets.backends import BACKENDS, Backend, race
from seqnets.errors import BackendError
from seqnets.overrides import override
from seqnets.recurrence import Problem, Result

ENVIRONMENT_VARIABLE = "SEQNETS_BACKEND"

# A plain global: torch.compile(fullgraph=True) cannot trace ContextVar.get. The innermost `use_backend` is last.
_overrides: list[list[str]] = []


@dataclass(frozen=True)
class Explanation:
    """What the dispatch decides for a call.

    Attributes:
        backend: the backend that will run, or None where the one asked for cannot serve and the call would raise.
        reasons: backend -> the sentence that says why it cannot serve or, where ``auto`` decides, why that passes over it;
            None where it can.
        asked: what was asked for, and where.
        note: what running it will cost, where that is worth knowing.
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
    """`name` itself if it is ``"auto"`` or a backend.

    Raises:
        BackendError: it is neither; the message lists the choices.
    """
    if name != "auto" and name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; choose from auto, {', '.join(BACKENDS)}")
    return name


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every layer that names no backend of its own on `name`, within a ``with`` block or a decorated function.

    It holds for the whole process, not for one thread.

    Raises:
        BackendError: there is no such backend.
    """
    check_backend(name)
    with override(_overrides, name):
        yield


def requested(layer_backend: str | None) -> tuple[str, str]:
    """The backend asked for, and by whom."""
    if layer_backend is not None:
        return check_backend(layer_backend), "the layer's backend="
    if _overrides:
        return _overrides[-1][0], "use_backend"
    name = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    return (check_backend(name), ENVIRONMENT_VARIABLE) if name else ("auto", "default")


def why_not(backend: Backend, problem: Problem, auto: bool) -> str | None:
    """Why the backend cannot serve or, for ``auto``, should not, as a clause, or None."""
    return backend.why_not(problem) or (why_passed_over(backend, problem) if auto else None)


def why_passed_over(backend: Backend, problem: Problem) -> str | None:
    """Why ``auto`` should not take the backend, though it may be able to serve."""
    only_if_asked = getattr(backend, "only_if_asked", None)
    return (only_if_asked(problem) if only_if_asked else None) or race.why_slower(backend, problem)


def dispatch(problem: Problem, backend: str | None = None) -> Result:
    """Run the problem on the backend asked for.

    Raises:
        BackendError: a backend asked for by name cannot serve; the message says why and which can.
    """
    name, _ = requested(backend)
    if name == "auto":
        for candidate in BACKENDS.values():
            # in this order, as finding out whether a backend can serve may take long
            if why_passed_over(candidate, problem) is None and candidate.why_not(problem) is None:
                return candidate.run(problem)
    reason = BACKENDS[name].why_not(problem)
    if reason is None:
        return BACKENDS[name].run(problem)
    others = [other for other, module in BACKENDS.items() if module.why_not(problem) is None]
    raise BackendError(f"backend {name!r} cannot serve this call: {reason}. These can: auto, {', '.join(others)}")


def explain_problem(problem: Problem, backend: str | None = None) -> Explanation:
    name, source = requested(backend)
    reasons = {candidate: why_not(module, problem, name == "auto") for candidate, module in BACKENDS.items()}
    serving = [candidate for candidate, why in reasons.items() if why is None]
    chosen = serving[0] if name == "auto" else name if name in serving else None
    note = getattr(BACKENDS[chosen], "note", None) if chosen else None
    return Explanation(chosen, reasons, f"{name} ({source})", note(problem) if note else None)
