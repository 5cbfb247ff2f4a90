"""Converts the states that recurrent layers take and return.

They are tuples, except for `seqnets.GRU` and `seqnets.RNN`, whose single state is a bare tensor as in torch.nn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_tuple(state: Any) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else tuple(state)


def as_taken(states: tuple[Tensor, ...]) -> Any:
    return states[0] if len(states) == 1 else states


def last_states(state: Any, num_directions: int) -> Tensor:
    """Return the final h of each direction in the last layer, concatenated, ``(B, D·H)``.

    This is not ``y[-1]``, where the reverse direction has read only one step.
    """
    return torch.cat(as_tuple(state)[0][-num_directions:].unbind(0), dim=-1)
