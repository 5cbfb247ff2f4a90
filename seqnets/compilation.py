"""What torch.compile asks rather than traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def constant(function: F) -> F:
    """Have torch.compile ask `function` once, while it traces, and keep the answer: plain values in and out.

    It is `torch.compiler.assume_constant_result`, which would import the compiler along with this library.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
