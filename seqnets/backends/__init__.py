"""The backends, in the order in which ``auto`` prefers them. A new one is a file here and a line in `BACKENDS`."""

from typing import Protocol

from seqnets.backends import aten, cpp, reference, triton
from seqnets.recurrence import Problem, Result


class Backend(Protocol):
    """What a backend's module defines. It may also define:

    ``note(problem) -> str | None``: what serving will cost.
    ``only_if_asked(problem) -> str | None``: why ``auto`` should pass over it although it can serve, as a clause like
    that of `why_not`.
    """

    def why_not(self, problem: Problem) -> str | None:
        """Why the backend cannot serve the problem, as a clause that reads on after "because", or None."""

    def run(self, problem: Problem) -> Result:
        """Solve the problem, differentiably."""


# aten before triton: nobody has measured the kernels against cuDNN yet; cells that torch lacks go to triton
BACKENDS: dict[str, Backend] = {"aten": aten, "triton": triton, "cpp": cpp, "reference": reference}
