"""The states that recurrent layers take and give: tuples, but for `seqnets.GRU` and `seqnets.RNN`, whose one is bare as torch.nn's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_tuple(state: Any) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else tuple(state)


def as_taken(states: tuple[Tensor, ...]) -> Any:
    return states[0] if len(states) == 1 else states


def last_states(state: Any, num_directions: int) -> Tensor:
    """``(B, directions · H)``: each direction's own final h in the last layer (not ``y[-1]``, where the reverse direction has read one
    step only).
    """
    return torch.cat(as_tuple(state)[0][-num_directions:].unbind(0), dim=-1)
