"""Lists the backends in the order in which ``auto`` prefers them.

A new backend is a file here and a line in `BACKENDS`.
"""

from typing import Protocol

from seqnets.backends import aten, cpp, reference, triton
from seqnets.recurrence import Problem, Result


class Backend(Protocol):
    """Describes what the module of a backend defines.

    It may also define two more functions:

    ``note(problem) -> str | None``: returns what it will cost to serve the problem.
    ``only_if_asked(problem) -> str | None``: returns why ``auto`` should skip the backend although it can serve, as a
    clause like that of `why_not`.
    """

    def why_not(self, problem: Problem) -> str | None:
        """Return why the backend cannot serve the problem, as a clause that can follow "because", or None if it can."""

    def run(self, problem: Problem) -> Result:
        """Solve the problem. Autograd can differentiate the result."""


# aten comes before triton, because nobody has measured the kernels against cuDNN yet; triton runs the cells that torch
# lacks.
BACKENDS: dict[str, Backend] = {"aten": aten, "triton": triton, "cpp": cpp, "reference": reference}
