"""Loss and metrics of classification, against scores computed by hand."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from seqnets.data.batch import Batch
from seqnets.tasks import Classification
from tests.tasks.trainers import quiet


def loader(targets):
    """Batches of two, the last one smaller, so that means must be weighted."""
    x = torch.randn(len(targets), 4)
    return x, DataLoader(
        list(zip(x, targets, strict=True)),
        batch_size=2,
        collate_fn=lambda rows: Batch(*map(torch.stack, zip(*rows, strict=True))),
    )


@pytest.mark.parametrize("num_classes", [2, 3])
def test_figures_are_means_over_all_examples(num_classes, tmp_path):
    targets = torch.tensor([0, 1, 1, 0, num_classes - 1])
    x, data = loader(targets)
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)) if num_classes == 2 else nn.Linear(4, 3)
    task = Classification(model, partial(torch.optim.SGD, lr=0.0), num_classes)
    trainer = quiet(tmp_path)
    trainer.fit(task, data, data)
    figures = dict(trainer.callback_metrics)
    trainer.test(task, data, verbose=False)
    figures |= trainer.callback_metrics
    with torch.no_grad():
        logits = model(x)
        loss = (
            F.binary_cross_entropy_with_logits(logits, targets.float())
            if num_classes == 2
            else F.cross_entropy(logits, targets)
        )
        predicted = (logits > 0).long() if num_classes == 2 else logits.argmax(-1)
        torch.testing.assert_close(task.probabilities(x).sum(-1), torch.ones(5))
        torch.testing.assert_close(task.probabilities(x).argmax(-1), predicted)
    assert figures.keys() <= set(task.logged)
    for part in ("train", "val", "test"):
        torch.testing.assert_close(figures[f"{part}/loss"], loss)
        torch.testing.assert_close(figures[f"{part}/accuracy"], (predicted == targets).float().mean())
