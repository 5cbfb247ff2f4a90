"""Gradient norms by time step."""

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

import seqnets
from seqnets.analysis.gradients import gradient_norms
from seqnets.data.batch import Batch
from seqnets.errors import ConfigError
from seqnets.models import SequenceRegressor
from seqnets.training import train
from tests.training.helpers import compose


def test_norms_are_those_of_a_product_of_jacobians():
    """For h_t = tanh(W h_{t-1} + …) the gradient goes back by diag(1 - h_t²) W at each step."""
    model = SequenceRegressor(seqnets.RNN(2, 4), 1).double()
    batch = Batch(torch.randn(3, 6, 2).double(), torch.randn(3, 1).double())
    norms = gradient_norms(model, lambda: F.mse_loss(model(batch.inputs), batch.targets))
    h, _ = model.recurrent(batch.inputs.transpose(0, 1))
    gradient = 2 * (model(batch.inputs) - batch.targets) / 3 * model.head.weight
    expected = []
    for t in reversed(range(6)):
        expected.insert(0, gradient.norm(dim=-1).mean())
        gradient = (gradient * (1 - h[t] ** 2)) @ model.recurrent.weight_hh_l0
    torch.testing.assert_close(norms["h"], torch.stack(expected).detach())
    assert isinstance(model.recurrent, seqnets.RNN)  # as it was
    assert all(p.grad is None for p in model.parameters())


def test_a_cell_that_carries_more_has_a_norm_for_each_state():
    model, inputs = SequenceRegressor(seqnets.LSTM(2, 4), 1), torch.randn(3, 6, 2)
    norms = gradient_norms(model, lambda: model(inputs).square().mean())
    assert norms.keys() == {"h", "c"}
    assert norms["c"][-1] == 0  # nothing reads the last one
    assert (norms["c"][:-1] > 0).all() and (norms["h"] > 0).all()


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}])
def test_stacks_are_refused(options):
    model = SequenceRegressor(seqnets.GRU(2, 4, **options), 1)
    with pytest.raises(ConfigError, match="one recurrent layer of one direction"):
        gradient_norms(model, lambda: model(torch.randn(3, 6, 2)).mean())


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_a_run_has_them_before_and_after_training(precision, tmp_path):
    train(
        compose(
            "+experiment=gradient_flow",
            "data.length=7",
            "data.train_size=20",
            "data.validation_size=4",
            "data.test_size=4",
            "data.batch_size=10",
            "trainer.max_epochs=1",
            "trainer.accelerator=cpu",
            f"trainer.precision={precision}",
            f"run_dir={tmp_path / 'run'}",
        )
    )
    table = pd.read_csv(tmp_path / "run" / "gradient_flow.csv")
    assert table.groupby(["when", "state"]).size().to_dict() == {
        (when, state): 7 for when in ("before training", "after training") for state in ("h", "c")
    }
    assert (tmp_path / "run" / "gradient_flow.png").stat().st_size > 5_000


def test_recurrent_weights_start_as_large_as_told():
    torch.manual_seed(0)
    plain = SequenceRegressor(seqnets.GRU(2, 4), 1)
    torch.manual_seed(0)
    larger = SequenceRegressor(seqnets.GRU(2, 4), 1, recurrent_gain=1.5)
    torch.testing.assert_close(larger.recurrent.weight_hh_l0, 1.5 * plain.recurrent.weight_hh_l0)
    assert torch.equal(larger.recurrent.weight_ih_l0, plain.recurrent.weight_ih_l0)
