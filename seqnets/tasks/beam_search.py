"""Searches for the most likely sequences of a model that predicts word by word."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Step = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, tuple[Tensor, ...]]]


@torch.no_grad()
def beam_search(
    step: Step,
    state: Sequence[Tensor],
    start: int,
    end: int,
    beam: int,
    max_steps: int,
    length_penalty: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return, for each of B beginnings, the best of the `beam` continuations that are kept at every step.

    The continuations kept have the highest log p(words) / lp, with lp = ((5 + |words|) / 6)^length_penalty (Wu et al.,
    arXiv:1609.08144, equation 14), where the end counts as a word. A continuation that has ended stays unchanged, as
    long as no better one displaces it.

    Args:
        step: maps the last words ``(N,)`` and states ``(·, N, ·)`` to the log probabilities ``(N, V)`` of the next word
            and the new states, where N = B·beam, with the hypotheses of one beginning side by side.
        state: the initial states, each ``(·, B, ·)``.
        start: the word before the first.
        end: the word that ends a sequence.
        beam: the number of continuations that are kept.
        max_steps: the number of steps after which the search ends.
        length_penalty: 0 prefers short sequences; 1 prefers, roughly, a high mean log probability per word.

    Returns:
        The words ``(B, T)``, filled with `end` from where a sequence ended, and their scores ``(B,)``.
    """
    state = tuple(s.repeat_interleave(beam, 1) for s in state)
    B, device = state[0].shape[1] // beam, state[0].device
    words = torch.full((B, beam), start, device=device)
    found = torch.empty(B, beam, 0, dtype=torch.int64, device=device)
    total = torch.full((B, beam), -torch.inf, device=device)
    total[:, 0] = 0  # all hypotheses start alike: only one of them counts
    length = torch.zeros(B, beam, device=device)
    ended = torch.zeros(B, beam, dtype=torch.bool, device=device)
    for _ in range(max_steps):
        next_log_p, state = step(words.flatten(), state)
        V = next_log_p.shape[-1]
        nothing_more = torch.full((V,), -torch.inf, device=device)
        nothing_more[end] = 0
        next_log_p = torch.where(ended[..., None], nothing_more, next_log_p.view(B, beam, V))
        totals = total[..., None] + next_log_p
        length = length + ~ended
        score, chosen = (totals / ((5 + length) / 6).pow(length_penalty)[..., None]).flatten(1).topk(beam)
        parent, words = chosen // V, chosen % V
        total, length = totals.flatten(1).gather(1, chosen), length.gather(1, parent)
        ended = ended.gather(1, parent) | (words == end)
        found = torch.cat([found.gather(1, parent[..., None].expand_as(found)), words[..., None]], dim=-1)
        rows = (torch.arange(B, device=device)[:, None] * beam + parent).flatten()
        state = tuple(s[:, rows] for s in state)
        if ended.all():
            break
    return found[:, 0], score[:, 0]
