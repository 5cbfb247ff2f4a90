"""Marks functions that torch.compile calls instead of tracing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def constant(function: F) -> F:
    """Make torch.compile call `function` once, while it traces, and treat the result as a constant.

    Arguments and result must be plain values. This does what `torch.compiler.assume_constant_result` does; that one
    would import the compiler along with this library.

    Returns:
        The same function, marked.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
