"""Shared by all tests."""

import os
from itertools import groupby

import pytest
import torch

from seqnets.dispatch import forget_choices

torch.set_num_threads(1)  # tests run in parallel processes


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    """The folder in which all tests, their processes and those of xdist find what one of them has compiled."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"


@pytest.fixture(autouse=True)
def _clean_slate(monkeypatch, shared_cache):
    monkeypatch.setenv("SEQNETS_CACHE", str(shared_cache))
    monkeypatch.delenv("SEQNETS_BACKEND", raising=False)
    monkeypatch.setenv("SEQNETS_MEASURE", "0")  # what auto takes must not depend on what else runs
    forget_choices()
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark as ``matrix`` all but one in n cases of each test that is marked ``sampled(n)``."""
    for _, cases in groupby(items, key=lambda item: item.nodeid.partition("[")[0]):
        for number, case in enumerate(cases):
            marker = case.get_closest_marker("sampled")
            # not simply every n-th: that could be the same value of the last parameter each time
            if marker and (number + number // marker.args[0]) % marker.args[0]:
                case.add_marker("matrix")
