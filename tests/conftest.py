"""Shared by all tests."""

import pytest
import torch

torch.set_num_threads(1)  # tests run in parallel processes


@pytest.fixture(autouse=True)
def _clean_slate(monkeypatch):
    monkeypatch.delenv("SEQNETS_BACKEND", raising=False)
    monkeypatch.setenv("SEQNETS_MEASURE", "0")  # what auto takes must not depend on what else runs
    torch.manual_seed(0)
