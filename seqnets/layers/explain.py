"""Explains which backend serves a call of a layer."""

from __future__ import annotations

from typing import Any

from seqnets.dispatch import Explanation
from seqnets.layers.cells import OneStep
from seqnets.layers.recurrent import Recurrent


def explain(module: Recurrent | OneStep, x: Any, state: Any = None, lengths: Any = None, **options: Any) -> Explanation:
    """Explain which backend would run ``module(x, state, lengths, **options)``, and why the others would not.

    Args:
        module: a seqnets layer, or a single-step module (``LSTMCell`` and so on), which takes only x and state.
        x, state, lengths, options: the arguments of the call, as `Recurrent.forward` takes them.

    Returns:
        An `Explanation`; print it to read it.

    Raises:
        TypeError: If `module` is not a seqnets layer. For a model, pass the layer inside it.
    """
    if isinstance(module, OneStep):
        return module.explain(x, state)
    if not isinstance(module, Recurrent):
        raise TypeError(f"explain takes a seqnets layer, got {type(module).__name__}; pass the layer inside it")
    return module.explain(x, state, lengths, **options)
