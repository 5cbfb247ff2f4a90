"""Beam search, against looking at every sequence there is."""

from itertools import pairwise, product

import pytest
import torch

from seqnets.tasks.beam_search import beam_search

END, V, STEPS, B = 0, 4, 4, 3


def chain(seed):
    """log p of the next word given the last two, another for each of B beginnings; the state carries the one before."""
    table = torch.randn(B, V + 1, V + 1, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    table = (2 * table).log_softmax(-1)

    def step(words, state):
        which, before = state
        return table[which[0, :, 0], before[0, :, 0], words], (which, words[None, :, None])

    state = torch.arange(B)[None, :, None], torch.full((1, B, 1), V)
    return table, step, state


def every(table, which, length_penalty):
    """Score and words of all sequences, those that are cut off included."""
    for words in product(range(V), repeat=STEPS):
        total, before, last, n = 0.0, V, V, 0
        for word in words:
            total, before, last, n = total + float(table[which, before, last, word]), last, word, n + 1
            if word == END:
                break
        yield total / ((5 + n) / 6) ** length_penalty, words[:n]


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_that_holds_everything_finds_the_best(seed, length_penalty):
    table, step, state = chain(seed)
    found, scores = beam_search(step, state, V, END, V**STEPS, STEPS, length_penalty)
    for which in range(B):
        score, words = max(every(table, which, length_penalty))
        assert float(scores[which]) == pytest.approx(score, rel=1e-5)
        assert found[which, : len(words)].tolist() == list(words)
        assert (found[which, len(words) :] == END).all()


def test_a_beam_of_one_is_greedy():
    table, step, state = chain(5)
    found, _ = beam_search(step, state, V, END, 1, STEPS)
    for which in range(B):
        before, last = V, V
        for word in found[which].tolist():
            if last == END:
                assert word == END
                continue
            assert word == int(table[which, before, last].argmax())
            before, last = last, word


def test_a_wider_beam_is_no_worse_here_and_the_batch_does_not_matter():
    _, step, state = chain(1)
    scores = [beam_search(step, state, V, END, beam, STEPS, 0.0)[1] for beam in (1, 3, 9, 64)]
    assert all((wider >= narrower - 1e-6).all() for narrower, wider in pairwise(scores))
    for which in range(B):
        alone = tuple(s[:, which : which + 1] for s in state)
        torch.testing.assert_close(beam_search(step, alone, V, END, 3, STEPS, 0.0)[1][0], scores[1][which])


def test_it_ends_when_all_have_ended():
    calls = []

    def step(words, state):
        calls.append(len(words))
        log_p = torch.full((len(words), V), -10.0)
        log_p[:, END] = -0.1
        return log_p, state

    found, _ = beam_search(step, (torch.zeros(1, 2, 1),), V, END, 1, 50)
    assert found.tolist() == [[END], [END]] and calls == [2]
