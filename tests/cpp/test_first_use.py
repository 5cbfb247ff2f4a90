"""The check of a compiled cell's first use."""

import json

import pytest
import torch

import seqnets
from seqnets.errors import BackendError
from seqnets.kernels.cpp import first_use, library, operator
from tests.cells import zoo
from tests.recurrences import masked, nbrc, normed, right, traced, wrong


@pytest.fixture
def checked(monkeypatch, tmp_path):
    """As in a new process, of a user without a cache."""
    monkeypatch.delenv("SEQNETS_CHECK", raising=False)
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))
    first_use.why_disagrees.cache_clear()
    yield tmp_path
    first_use.why_disagrees.cache_clear()


CELLS = [*zoo.ALL.values(), traced, normed, masked, nbrc]
QUESTIONS = [(cell, torch.float32) for cell in CELLS]
QUESTIONS += [(cell, dtype) for cell in (zoo.ALL["lstm"], normed) for dtype in (torch.float64, torch.bfloat16)]


@pytest.mark.parametrize(("cell", "dtype"), QUESTIONS, ids=lambda value: getattr(value, "name", str(value)))
def test_right_kernels_pass(cell, dtype):
    assert isinstance(library.library(cell, dtype), library.Library)
    assert first_use._judge(cell, dtype) is None


@pytest.mark.parametrize("which", ["forward", "backward"])
def test_a_kernel_that_disagrees_is_refused_and_auto_goes_on(which, checked, monkeypatch):
    theirs, ours = (library.library(cell, torch.float32) for cell in (wrong, right))
    monkeypatch.setattr(ours.call, which, getattr(theirs.call, which))
    layer, x = seqnets.Recurrent(right, 3, 4, backend="cpp"), torch.randn(4, 2, 3)
    with pytest.raises(
        BackendError, match=r"on first use its kernels disagreed .* where .* is allowed \(SEQNETS_CHECK=0"
    ):
        layer(x)
    layer.backend = "auto"
    assert seqnets.explain(layer, x).backend == "reference"
    monkeypatch.setenv("SEQNETS_CHECK", "0")
    assert seqnets.Recurrent(right, 3, 4, backend="cpp")(x)[0].shape == (4, 2, 4)


def test_the_verdict_is_kept(checked, monkeypatch):
    assert first_use.why_disagrees(right, torch.float64) is None
    (path,) = checked.glob("kernels/check-*.json")
    assert json.loads(path.read_text())["value"] == {"why": None}
    first_use.why_disagrees.cache_clear()
    monkeypatch.setattr(first_use, "_judge", lambda *given: "it was judged again")
    assert first_use.why_disagrees(right, torch.float64) is None


def test_kernels_that_fail_are_refused_with_the_reason(checked, monkeypatch, caplog):
    def fail(*given):
        raise RuntimeError("no memory")

    monkeypatch.setattr(operator.layer, "_init_fn", fail)
    assert "failed (RuntimeError: no memory)" in first_use.why_disagrees(right, torch.float32)
    assert "Traceback" in caplog.text
