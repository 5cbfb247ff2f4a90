"""Shares the small data sets of the tests of training."""

from tests.training.conftest import reviews  # noqa: F401 - a fixture
