import pytest

from seqnets.data import files as files_module
from seqnets.data import hub as hub_module


@pytest.fixture(autouse=True)
def _on_its_own(monkeypatch, tmp_path):
    """No data, cache, network or Hugging Face cache of this machine."""
    monkeypatch.delenv("SEQNETS_DATA", raising=False)
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_module, "_failure", lambda name, seconds: "no network in tests")
    monkeypatch.setattr(files_module, "_downloaded", _from_this_machine_alone)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


_downloaded = files_module._downloaded


def _from_this_machine_alone(name, files):
    if any(not file.url.startswith("http://127.0.0.1") for file in files.values()):
        raise hub_module.Unavailable("no network in tests")
    return _downloaded(name, files)
