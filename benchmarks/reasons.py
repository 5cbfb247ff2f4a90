"""Why seqnets is slower than another contender in a case, as far as the figures tell."""

from __future__ import annotations

from benchmarks.cases import LayerCase
from benchmarks.results import Figures

NEAR = 0.75  # of the floor: there is little to gain
SHORT = 1e-3  # seconds, in which what Python takes is seen
LANES = 16  # float32 numbers of a vector, at most


def why_slower(theirs: Figures, ours: Figures) -> str:
    """A sentence."""
    case, seconds = ours.case, ours.seconds
    assert isinstance(case, LayerCase) and seconds is not None
    if case.suite == "latency":
        return "the step passes through Python, which checks shapes and states and picks a backend at each call"
    if theirs.contender == "torch.nn" and ours.note.startswith("aten"):
        return "it is the same operation, called through the dispatch"
    found = []
    if theirs.contender == "torch.nn" and ours.note.startswith("cpp"):
        found.append("auto measured another size (at most 32 steps, the batch rounded up), where cpp was faster")
    if ours.floor_share is not None and ours.floor_share > NEAR:
        found.append(f"both are near what the machine can do ({100 * ours.floor_share:.0f}% of the floor)")
    if seconds.median < SHORT:
        found.append("a call passes through Python, which shows in less than a millisecond")
    if theirs.contender == "onnxruntime":
        found.append("its weights cannot change and are packed once, here they are packed at each call")
    if case.B == 1:
        found.append("with one row threads share its units, and meet after each time step")
    if case.H % LANES:
        found.append(f"{case.H} units are computed as {-(-case.H // LANES) * LANES}, in full vectors")
    return "; ".join(found) or "not known"
