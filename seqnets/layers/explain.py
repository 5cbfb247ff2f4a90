"""Asking a layer which backend would serve it."""

from __future__ import annotations

from typing import Any

from seqnets.dispatch import Explanation
from seqnets.layers.cells import OneStep
from seqnets.layers.recurrent import Recurrent


def explain(module: Recurrent | OneStep, x: Any, state: Any = None, lengths: Any = None, **options: Any) -> Explanation:
    """Which backend would run ``module(x, state, lengths, **options)``, and why the others would not.

    Args:
        module: a seqnets layer, or one of the step modules (``LSTMCell`` and so on), which take x and state only.

    Raises:
        TypeError: `module` is not a seqnets layer. For a model, pass the layer inside it.
    """
    if isinstance(module, OneStep):
        return module.explain(x, state)
    if not isinstance(module, Recurrent):
        raise TypeError(f"explain takes a seqnets layer, got {type(module).__name__}; pass the layer inside it")
    return module.explain(x, state, lengths, **options)
