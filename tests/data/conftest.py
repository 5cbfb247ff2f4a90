import pytest

from seqnets.data import hub as hub_module


@pytest.fixture(autouse=True)
def _on_its_own(monkeypatch, tmp_path):
    """No data, cache, network or Hugging Face cache of this machine."""
    monkeypatch.delenv("SEQNETS_DATA", raising=False)
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_module, "_failure", lambda name, seconds: "no network in tests")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
