"""Explains why seqnets is slower than another contender in a case, as far as the measurements tell."""

from __future__ import annotations

from benchmarks.cases import LayerCase
from benchmarks.results import Figures

NEAR = 0.75  # share of the roofline above which there is little to gain
SHORT = 1e-3  # seconds below which Python's overhead shows


def why_slower(theirs: Figures, ours: Figures) -> str:
    """Return the reasons as one line, or "not known"."""
    case, seconds = ours.case, ours.seconds
    if not isinstance(case, LayerCase) or seconds is None:
        return "not known"
    if case.suite == "latency" and theirs.contender == "seqnets-reference":
        return (
            "for so little work auto takes torch's operation for sequences, "
            "which sets up more than the few operations of a step do"
        )
    if case.suite == "latency":
        return "the step passes through Python, which checks shapes and states and picks a backend at each call"
    if theirs.contender == "torch.nn" and ours.note.startswith("aten"):
        return "the same operation, called through the dispatch; more than a few percent are noise"
    if not ours.note.startswith("cpp"):
        return "not known"
    found = []
    if theirs.contender == "torch.nn":
        found.append("auto measured another size (at most 32 steps, the batch rounded up), where cpp was faster")
    if ours.floor_share is not None and ours.floor_share > NEAR:
        found.append(f"both are near what the machine can do ({100 * ours.floor_share:.0f}% of the floor)")
    if seconds.median < SHORT:
        found.append("a call passes through Python, which shows in less than a millisecond")
    if theirs.contender == "onnxruntime":
        found.append("its weights cannot change and are packed once, here they are packed at each call")
    if case.B == 1:
        found.append("with one row threads share its units, and meet after each time step")
    if case.H % 16:
        found.append(f"{case.H} units do not fill vectors, and are computed as if they did")
    return "; ".join(found) or "not known"
