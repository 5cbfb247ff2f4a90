import pytest

from seqnets.data import sources


@pytest.fixture(autouse=True)
def _on_its_own(monkeypatch, tmp_path):
    """No data, cache, network or Hugging Face cache of this machine."""
    monkeypatch.delenv("SEQNETS_DATA", raising=False)
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_hub_failure", lambda seconds: "no network in tests")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
