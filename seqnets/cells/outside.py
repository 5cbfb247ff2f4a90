"""Finds the numbers that a function reads from outside: from its module and from enclosing functions."""

from __future__ import annotations

import dis
from types import CodeType
from typing import Any


def global_names(code: CodeType | None) -> frozenset[str]:
    """Return the names of globals that a function's code reads, including functions defined inside it."""
    if code is None:  # the step is a callable object
        return frozenset()
    own = {instruction.argval for instruction in dis.get_instructions(code) if instruction.opname == "LOAD_GLOBAL"}
    inner = (global_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return frozenset(own.union(*inner))


def numbers_read(function: Any, names: frozenset[str]) -> dict[str, float]:
    """Return the current values of the numbers among the globals of these names and the variables it closes over."""
    outside = {name: function.__globals__[name] for name in names if name in function.__globals__}
    for name, held in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            outside[name] = held.cell_contents
        except ValueError:  # not assigned yet
            continue
    return {name: value for name, value in outside.items() if isinstance(value, int | float)}
