"""Shared by all tests."""

import pytest
import torch

torch.set_num_threads(1)  # tests run in parallel processes


@pytest.fixture(autouse=True)
def _clean_slate(monkeypatch):
    monkeypatch.delenv("SEQNETS_BACKEND", raising=False)
    torch.manual_seed(0)
