import pytest

from tests.data.made import parquet_folder


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("SEQNETS_DATA", raising=False)
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def reviews(tmp_path):
    """A folder of 40 training and 20 test reviews."""
    return parquet_folder(tmp_path / "reviews")
