"""A series as windows and what follows: split in time, scaled by what is trained on alone."""

import pytest
import torch

from seqnets.data import Series, encoder_from_dict
from seqnets.errors import ConfigError, DataError


def series(file, values):
    file.write_text("time,value\n" + "".join(f"{1900 + k},{v}\n" for k, v in enumerate(values)))
    return file


def loaded(data):
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.fixture
def data(tmp_path):
    """0 to 49: 32 to train on, 8 for validation, 10 to test."""
    return loaded(Series(series(tmp_path / "x.csv", range(50)), window=4, horizon=2, season=3, batch_size=5))


def rows(data, loader):
    batches = list(loader)
    unscaled = [data.encoder.unscale(torch.cat([b[k].flatten(1) for b in batches])) for k in (0, 1)]
    order = unscaled[0][:, 0].argsort()
    return [x[order].round().int().tolist() for x in unscaled]


def test_targets_follow_their_window_and_lie_within_their_split(data):
    assert next(iter(data.train_dataloader())).inputs.shape == (5, 4, 1)
    inputs, targets = rows(data, data.train_dataloader())
    assert (inputs[0], targets[0]) == ([0, 1, 2, 3], [4, 5])
    assert (inputs[-1], targets[-1]) == ([26, 27, 28, 29], [30, 31])
    inputs, targets = rows(data, data.val_dataloader())
    assert (inputs[0], targets[0], targets[-1]) == ([28, 29, 30, 31], [32, 33], [38, 39])
    inputs, targets = rows(data, data.test_dataloader())
    assert (inputs[0], targets[0], targets[-1]) == ([36, 37, 38, 39], [40, 41], [48, 49])
    assert data.provenance()["rows"] == {"train": 27, "validation": 7, "test": 9}
    assert data.bounds == {"train": (0, 32), "validation": (32, 40), "test": (40, 50)}


def test_nothing_of_the_later_splits_is_in_the_scale(tmp_path):
    values = list(range(50))
    values[32:] = [1e6] * 18
    encoder = loaded(Series(series(tmp_path / "x.csv", values), window=4, season=3)).encoder
    train = torch.arange(32.0)
    assert encoder.mean == pytest.approx(float(train.mean()))
    assert encoder.std == pytest.approx(float(train.std()))


def test_numbers_one_types_become_a_window(data):
    encoder = encoder_from_dict(data.encoder.to_dict())
    assert encoder.usage == '"46 47 48 49"'
    windows = encoder.encode(["46 47 48 49", "1, 2, 46,47,48 , 49"])
    assert windows.shape == (2, 4, 1) and torch.equal(*windows)
    torch.testing.assert_close(encoder.unscale(windows[0, :, 0]), torch.tensor([46.0, 47, 48, 49]))
    with pytest.raises(ValueError, match="'x' is no number"):
        encoder.encode(["1 2 x 4"])
    with pytest.raises(ValueError, match="looks back 4 steps, but '1 2 3' has 3 numbers"):
        encoder.encode(["1 2 3 4", "1 2 3"])
    with pytest.raises(ValueError, match="'nan' is no number"):
        encoder.encode(["1 2 nan 4"])


def test_a_trained_models_scale_is_kept(data, tmp_path):
    other = loaded(Series(series(tmp_path / "y.csv", range(100, 150)), window=4, season=3, encoder=data.encoder))
    assert other.encoder is data.encoder
    with pytest.raises(ConfigError, match="looks back 4"):
        Series(window=12, encoder=data.encoder)


def test_a_spreadsheet_may_have_marked_its_file_as_utf_8(tmp_path):
    file = series(tmp_path / "x.csv", range(50))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert (
        loaded(Series(file, window=4, season=3)).times[0]
        == loaded(Series(series(tmp_path / "y.csv", range(50)), window=4, season=3)).times[0]
    )


def test_there_need_be_no_validation(tmp_path):
    data = loaded(Series(series(tmp_path / "x.csv", range(50)), window=4, season=3, validation_fraction=0.0))
    assert data.val_dataloader() == [] and data.bounds["train"] == (0, 40)


def test_the_sunspots_come_with_statsmodels():
    pytest.importorskip("statsmodels")
    data = loaded(Series())
    assert (data.times[0], data.times[-1], len(data.values)) == ("1700", "2008", 309)
    assert {name: data.times[start] for name, (start, _) in data.bounds.items()} == {
        "train": "1700", "validation": "1898", "test": "1947",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("time,number\n1,2\n", "columns time,value"),
        ("time,value\n1,x\n", "columns time,value"),
        ("time,value\n1\n", "columns time,value"),
        ("time,value\n1,nan\n", "no finite number"),
        ("time,value\n1,2\n2,3\n", "too few for a window of 4"),
        ("time,value\n" + "1,2\n" * 50, "all values to train on are equal"),
    ],
)
def test_what_is_no_series_is_refused(text, told, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=told):
        loaded(Series(tmp_path / "x.csv", window=4, season=3))


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(DataError, match="none.csv"):
        loaded(Series(tmp_path / "none.csv"))
    for wrong in (
        {"window": 0},
        {"horizon": 0},
        {"window": 5, "season": 11},
        {"test_fraction": 0.0},
        {"validation_fraction": 1.0},
    ):
        with pytest.raises(ConfigError):
            Series(**wrong)
