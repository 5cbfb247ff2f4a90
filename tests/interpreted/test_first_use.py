"""What happens where a kernel does not even run on its first use."""

import logging

import pytest
import torch

import seqnets
from seqnets.errors import BackendError
from seqnets.kernels import first_use


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """Kernels whose compiler gives up, as on a GPU that nobody tried."""

    def fail(*_):
        raise RuntimeError("out of resource: shared memory\nRequired: 300000")

    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))
    monkeypatch.setattr(first_use, "_judge", fail)
    first_use.why_disagrees.cache_clear()
    yield
    first_use.why_disagrees.cache_clear()


def test_a_kernel_that_fails_is_refused_with_its_error_and_nothing_is_kept(broken, tmp_path, caplog):
    layer = seqnets.GRU(3, 4, backend="triton")
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(BackendError, match=r"failed \(RuntimeError: out of resource: shared memory\)"),
    ):
        layer(torch.randn(2, 1, 3))
    assert "Traceback" in caplog.text
    assert not list(tmp_path.rglob("*.json"))  # it may have been another program's memory


def test_auto_goes_on_without_it(broken, monkeypatch):
    monkeypatch.setattr("seqnets.backends.triton.only_if_asked", lambda problem: None)
    layer, x = seqnets.Recurrent("gru", 3, 4), torch.randn(2, 1, 3)
    monkeypatch.setattr("seqnets.backends.aten.why_not", lambda problem: "not today")
    assert torch.equal(layer(x)[0], seqnets.use_backend("reference")(layer)(x)[0])
    assert "out of resource" in seqnets.explain(layer, x).reasons["triton"]
