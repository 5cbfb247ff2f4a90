"""Forecasts and what they have to beat, against figures computed by hand."""

from functools import partial

import pytest
import torch

import seqnets
from seqnets.data import Series
from seqnets.errors import ConfigError
from seqnets.models import SequenceRegressor
from seqnets.tasks import Forecasting
from seqnets.tasks.baselines import autoregression, persistence, seasonal
from tests.tasks.trainers import quiet


def test_persistence_and_season_repeat_what_was():
    past = torch.arange(10.0).expand(2, 10)
    assert persistence(3)(past).tolist() == [[9, 9, 9]] * 2
    assert seasonal(3, 4)(past).tolist() == [[6, 7, 8]] * 2
    assert seasonal(5, 3)(past).tolist() == [[7, 8, 9, 7, 8]] * 2


def test_an_autoregression_is_that_of_statsmodels():
    autoreg = pytest.importorskip("statsmodels.tsa.ar_model")
    torch.manual_seed(0)
    series = torch.randn(60).cumsum(0)
    forecast = autoregression(series, 3, horizon=4)(series[None, -10:])
    expected = autoreg.AutoReg(series.double().numpy(), 3, trend="c").fit().forecast(4)
    torch.testing.assert_close(forecast[0].double(), torch.tensor(expected), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="needs 7 values"):
        autoregression(series[:6], 3, 1)


@pytest.fixture
def data(tmp_path):
    """60 values of a wave of 7 steps: 38 to train on, 10 for validation, 12 to test."""
    values = 50 + 40 * torch.sin(torch.arange(60) * 2 * torch.pi / 7) + torch.randn(60)
    text = "".join(f"{k},{v}\n" for k, v in enumerate(values.tolist()))
    (tmp_path / "x.csv").write_text(f"time,value\n{text}")
    data = Series(tmp_path / "x.csv", window=8, horizon=2, season=7, batch_size=5, eval_batch_size=4)
    data.setup()
    return data


@pytest.fixture
def task():
    return Forecasting(SequenceRegressor(seqnets.LSTM(1, 5), 2), partial(torch.optim.SGD, lr=0.0), order=3)


def test_figures_are_in_the_datas_units_with_what_is_to_beat_beside_them(data, task, tmp_path):
    trainer = quiet(tmp_path)
    trainer.fit(task, datamodule=data)
    figures = dict(trainer.callback_metrics)
    trainer.test(task, datamodule=data, verbose=False)
    figures |= trainer.callback_metrics
    truth = data.values.unfold(0, 10, 1)  # windows with their targets
    parts = {"train": truth[:29], "val": truth[30:39], "test": truth[40:]}
    for part, rows in parts.items():
        past, future = rows[:, :8], rows[:, 8:]
        forecasts = {"": data.encoder.unscale(task(data.encoder.scale(past)[..., None])).detach()}
        if part == "test":
            forecasts["_persistence"] = past[:, -1:].expand(-1, 2)
            forecasts["_seasonal"] = past[:, 1:3]
            forecasts["_ar3"] = autoregression(data.values[:38], 3, 2)(past)  # of the training values alone
        for name, forecast in forecasts.items():
            off = forecast - future
            assert float(figures[f"{part}/rmse{name}"]) == pytest.approx(float((off**2).mean().sqrt()), rel=1e-4)
            assert float(figures[f"{part}/mae{name}"]) == pytest.approx(float(off.abs().mean()), rel=1e-4)
        scaled = (forecasts[""] - future) / data.encoder.std
        assert float(figures[f"{part}/loss"]) == pytest.approx(float((scaled**2).mean()), rel=1e-4)


def test_later_steps_build_on_the_earlier(task):
    window = torch.randn(3, 8, 1)
    first = task(window)
    second = task(torch.cat([window, first[..., None]], 1)[:, 2:])
    torch.testing.assert_close(task.forecast(window, 3), torch.cat([first, second], 1)[:, :3])


def test_numbers_are_answered_with_those_that_follow(data, task):
    line = data.encoder.usage.strip('"')
    both, longer = task.predict(data.encoder, (), [line, line]), task.predict(data.encoder, (), [line], length=5)
    assert both[0] == both[1] and len(both[0].fields["forecast"]) == 2
    assert both[0].line == " ".join(f"{value:.1f}" for value in both[0].fields["forecast"])
    assert longer[0].fields["forecast"][:2] == both[0].fields["forecast"] and len(longer[0].fields["forecast"]) == 5
    with pytest.raises(ValueError, match="length is 0"):
        task.predict(data.encoder, (), [line], length=0)


def test_what_does_not_fit_is_said(data, task):
    for order, told in ((9, "from 1 to data.window, 8"), (0, "from 1")):
        task.order = order
        with pytest.raises(ConfigError, match=told):
            task.check(data)
    task.order, task.model = 3, SequenceRegressor(seqnets.LSTM(1, 5), 1)
    with pytest.raises(ValueError, match="set model.net.out_features to data.horizon"):
        task.check(data)
