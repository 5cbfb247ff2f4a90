"""Losses of the problems of memory, against sums by hand; small runs of them."""

from functools import partial

import pytest
import torch
from torch import nn

from seqnets.data.batch import Batch
from seqnets.errors import ConfigError
from seqnets.tasks import Forecasting, Recall, Regression
from seqnets.training import train
from tests.training.helpers import compose

SGD = partial(torch.optim.SGD, lr=0.0)


def test_regression_is_the_mean_square():
    batch = Batch(torch.randn(4, 3), torch.randn(4, 2))
    model = nn.Linear(3, 2)
    torch.testing.assert_close(
        Regression(model, SGD).loss(batch, "fit")[0], (model(batch.inputs) - batch.targets).square().mean()
    )
    with pytest.raises(ConfigError, match=r"gives \(4, 1\) for targets \(4, 2\)"):
        Regression(nn.Linear(3, 1), SGD).loss(batch, "fit")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("task", [Regression, Forecasting])
def test_squared_errors_have_gradients_in_every_dtype(task, dtype):
    """As with trainer.precision=64-true or bf16-true, where targets are of the model's dtype and losses of float32."""
    found, targets = torch.randn(4, 2, dtype=dtype, requires_grad=True), torch.randn(4, 2, dtype=dtype)
    loss, _ = task(nn.Identity(), SGD).loss(Batch(found, targets), "fit")
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(found.grad, (2 * (found.float() - targets.float()) / 8).to(dtype))


def test_recall_counts_the_symbols_alone():
    targets = torch.tensor([[0, 0, 3, 1], [0, 0, 2, 2]])
    logits = torch.randn(2, 4, 5)
    logits[:, :, 2] = 9.0  # always predicts 2
    task = Recall(nn.Identity(), SGD)
    loss, found = task.loss(Batch(logits, targets), "fit")
    torch.testing.assert_close(loss, -logits.log_softmax(-1).gather(-1, targets[..., None]).mean())
    assert float(task.of_step(loss, found, Batch(logits, targets))["accuracy"]) == 0.5


@pytest.mark.parametrize("experiment", ["adding_problem", "copy_memory"])
def test_a_run_ends_once_its_problem_is_solved(experiment, tmp_path):
    solved = "callbacks.solved.stopping_threshold=" + ("10" if experiment == "adding_problem" else "0")
    figures, objects = train(
        compose(
            f"+experiment={experiment}",
            "data.length=4",
            "data.train_size=20",
            "data.validation_size=4",
            "data.test_size=4",
            "data.batch_size=10",
            "trainer.accelerator=cpu",
            "model.net.recurrent.hidden_size=5",
            f"run_dir={tmp_path / 'run'}",
            solved,
        )
    )
    assert objects["result"]["epochs"] == 1
    assert 0 < figures["test/loss"] < 10
