"""Loads data sets from the Hugging Face hub, or from the copy that an earlier run cached."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from queue import Empty, SimpleQueue
from typing import Any

from seqnets.data.origins import Unavailable
from seqnets.errors import DataError

SECONDS = 5.0  # after this time the hub counts as unreachable; `datasets` itself retries for more than 20


def load_from_hub(name: str, *config: str) -> tuple[Any, str]:
    """Load a data set from the hub, or a cached copy of it.

    Returns:
        The splits by name, and a note that says why a cached copy was used; empty if the hub was reached.

    Raises:
        Unavailable: If the data set cannot be loaded. The message says why.
    """
    try:
        import datasets
    except ImportError as error:
        raise Unavailable(f"The package datasets cannot be imported ({error}): `pip install datasets`.") from error
    failure = "offline mode is on" if datasets.config.HF_HUB_OFFLINE else _failure(name, SECONDS)
    try:
        with _offline(datasets.config) if failure else nullcontext():
            loaded = datasets.load_dataset(name, *config)
    except Exception as error:  # the errors of `datasets` have no common base class
        reason = f"{failure}, and no copy is cached" if failure else f"{type(error).__name__}: {error}"
        raise Unavailable(f"{name} cannot be had ({reason}): connect to the Hugging Face hub.") from error
    return loaded, f"Cached copy: {failure}." if failure else ""


def split_of(loaded: Any, name: str, split: str) -> Any:
    """Return the split named `split`.

    Raises:
        DataError: If the data set has no such split.
    """
    if split not in loaded:
        raise DataError(f"{name} has no {split} split: empty the Hugging Face cache, or use another source.")
    return loaded[split]


def _failure(name: str, seconds: float) -> str | None:
    """Return why the hub does not respond within ``seconds``, or None if it does."""
    from huggingface_hub import HfApi

    answer: SimpleQueue[str | None] = SimpleQueue()

    def ask() -> None:
        try:
            HfApi().dataset_info(name, timeout=seconds)
            answer.put(None)
        except Exception as error:  # any error is a reason
            answer.put(f"{type(error).__name__}: {error}".splitlines()[0])

    threading.Thread(target=ask, daemon=True).start()  # the timeout of a request does not bound the DNS lookup
    try:
        return answer.get(timeout=seconds)
    except Empty:
        return f"no answer within {seconds:g} s"


@contextmanager
def _offline(config: Any) -> Iterator[None]:
    before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before
