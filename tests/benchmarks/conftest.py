"""Folders of their own for all that a benchmark keeps."""

from tests.training.conftest import _own_cache, reviews  # noqa: F401 - fixtures
