"""Batches of like sizes, in an order by seed and epoch that can be gone on with."""

from itertools import pairwise

import numpy as np
import torch

from seqnets.data.loader import ResumableLoader, common_options
from seqnets.data.pairs import BySize, Pairs

SIZES = np.random.default_rng(0).integers(1, 30, (103, 2))


def order(epoch, seed=0):
    sampler = BySize(SIZES, 10, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_every_row_comes_once_in_an_order_by_seed_and_epoch():
    orders = [order(0), order(1), order(0, seed=1)]
    assert all(sorted(one) == list(range(103)) for one in orders)
    assert order(0) == orders[0]
    assert len({tuple(one) for one in orders}) == 3
    assert len({frozenset(one[:10]) for one in orders}) == 3


def test_rows_of_a_batch_are_of_like_sizes_and_batches_in_random_order():
    batches = [SIZES[order(0)[k : k + 10]] for k in range(0, 100, 10)]
    spans = sorted((int(b[:, 0].min()), int(b[:, 0].max())) for b in batches)
    assert all(high <= low for (_, high), (low, _) in pairwise(spans))
    assert [b[0, 0] for b in batches] != sorted(b[0, 0] for b in batches)


def test_pairs_are_cut_to_the_longest_of_a_batch():
    inputs = torch.tensor([[1, 2, 0, 0], [3, 0, 0, 0], [1, 2, 3, 4]], dtype=torch.int32)
    targets = torch.tensor([[5, 0, 0], [6, 7, 0], [8, 8, 8]], dtype=torch.int32)
    batch = Pairs(inputs, targets, 0).__getitems__([1, 0])
    assert batch.inputs.tolist() == [[3, 0], [1, 2]] and batch.inputs.dtype == torch.int64
    assert batch.targets.tolist() == [[6, 7], [5, 0]]
    assert batch.lengths.tolist() == [1, 2]


def test_an_epoch_can_be_gone_on_with():
    pairs = Pairs(torch.arange(1, 104)[:, None], torch.ones(103, 1, dtype=torch.int64), 0)

    def loader(seed=3):
        return ResumableLoader(pairs, 10, sampler=BySize(SIZES, 10, seed), **common_options(0))

    whole = loader()
    whole.sampler.set_epoch(2)
    batches = iter(whole)
    for _ in range(4):
        next(batches)
    resumed = loader()
    resumed.load_state_dict(whole.state_dict())
    rest = [batch.inputs for batch in resumed]
    assert len(rest) == 7 and all(map(torch.equal, rest, [batch.inputs for batch in batches]))
