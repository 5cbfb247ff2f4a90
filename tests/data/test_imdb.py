import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from seqnets.data import IMDB, Batch, TextEncoder
from seqnets.errors import ConfigError, DataError
from tests.data import synthetic

SIZES = {"vocab_size": 16, "max_tokens": 8, "batch_size": 8, "eval_batch_size": 16}


@pytest.fixture
def folder(tmp_path):
    return synthetic.parquet_folder(tmp_path / "imdb")


def ready(folder, **options):
    data = IMDB(folder, **{**SIZES, **options})
    data.prepare_data()
    data.setup("fit")
    return data


def everything(loader):
    batches = list(loader)
    return torch.cat([b.inputs for b in batches]), torch.cat([b.targets for b in batches])


def test_batches_are_the_encoded_reviews(folder):
    data = ready(folder)
    texts, labels = synthetic.reviews(20, 1)
    inputs, targets = everything(data.test_dataloader())
    expected = torch.column_stack([data.encoder.encode(texts), torch.tensor(labels)])
    assert sorted(torch.column_stack([inputs, targets]).tolist()) == sorted(expected.tolist())
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, Batch)
    assert batch.inputs.shape == (8, 8)
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64
    assert batch.inputs.max() < 16
    assert data.labels == ("negative", "positive")


def test_the_vocabulary_may_be_given(folder):
    given = TextEncoder(["film"], 8)
    data = ready(folder, encoder=given)
    assert data.encoder.words == ["film"]
    assert everything(data.test_dataloader())[0].max() <= 3
    assert ready(folder).encoder.words != ["film"]  # not taken from the cache for the other


def test_the_vocabulary_is_that_of_the_training_part(folder):
    texts, _ = synthetic.reviews(40, 0)
    assert ready(folder).encoder.words == TextEncoder.fit(texts, 16, 8).words
    data = ready(folder, validation_fraction=0.25, vocab_size=1000)
    assert data.provenance()["rows"] == {"train": 30, "validation": 10, "test": 20}
    own = {word for word in data.encoder.words if word.startswith("number")}
    assert len(own) == 30  # each made review has a word of its own


def test_validation_is_the_same_for_every_seed_and_no_part_of_training(folder):
    parts = [ready(folder, validation_fraction=0.25, seed=seed, max_tokens=20) for seed in (0, 1)]
    validation = [everything(data.val_dataloader()) for data in parts]
    assert torch.equal(validation[0][0], validation[1][0])
    assert validation[0][1].bincount().tolist() == [5, 5]
    orders = [everything(data.train_dataloader())[0] for data in parts]
    assert not torch.equal(*orders)
    assert orders[0].sort(0).values.equal(orders[1].sort(0).values)


def test_without_validation_there_is_no_loader(folder):
    assert ready(folder).val_dataloader() == []


def test_the_cache_gives_the_same_and_is_used(folder, monkeypatch):
    first = ready(folder)
    monkeypatch.setattr(TextEncoder, "fit", lambda *args: pytest.fail("encoded again"))
    second = ready(folder)
    for name in ("train_dataloader", "test_dataloader"):
        assert all(map(torch.equal, everything(getattr(first, name)()), everything(getattr(second, name)())))
    assert first.encoder.to_dict() == second.encoder.to_dict()
    assert first.provenance() == second.provenance()
    ready(folder, seed=5, batch_size=3)  # what does not change the encoding does not encode again


@pytest.mark.parametrize("option", [{"vocab_size": 17}, {"max_tokens": 9}, {"validation_fraction": 0.5}])
def test_what_changes_the_encoding_is_not_taken_from_the_cache(folder, monkeypatch, option):
    ready(folder)
    monkeypatch.setattr(TextEncoder, "fit", lambda *args: (_ for _ in ()).throw(KeyError("encoded again")))
    with pytest.raises(KeyError, match="encoded again"):
        ready(folder, **option)


def test_other_reviews_are_not_taken_from_the_cache(folder):
    before = ready(folder).provenance()["fingerprint"]
    synthetic.parquet(folder / "train.parquet", *synthetic.reviews(40, 9))
    data = ready(folder)
    assert data.provenance()["fingerprint"] != before
    expected = data.encoder.encode(synthetic.reviews(20, 1)[0])
    assert sorted(everything(data.test_dataloader())[0].tolist()) == sorted(expected.tolist())


def test_a_damaged_cache_is_rebuilt(folder, tmp_path, caplog):
    inputs, _ = everything(ready(folder).test_dataloader())
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    assert torch.equal(everything(ready(folder).test_dataloader())[0], inputs)
    assert "truncated or damaged" in caplog.text


def test_provenance_is_plain(folder):
    provenance = ready(folder).provenance()
    assert json.loads(json.dumps(provenance)) == provenance
    assert provenance["source"] == "local"
    assert provenance["location"] == str(folder)
    assert provenance["rows"] == {"train": 40, "test": 20}


def test_a_review_without_words_is_named(folder):
    synthetic.parquet(folder / "test.parquet", ["fine", "<<<>>>"], [1, 0])
    with pytest.raises(DataError, match=r"test split: text 1 \('<<<>>>'\) holds no word"):
        ready(folder)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"vocab_size": 3}, "vocab_size is 3, but must be an integer of at least 4"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 8.5}, "max_tokens is 8.5, but must be an integer"),
        ({"seed": True}, "seed is True"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"eval_batch_size": -1}, "eval_batch_size is -1"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"source": "web"}, "no source 'web'"),
        ({"path": "x", "source": "hub"}, "leave one of the two out"),
    ],
)
def test_bad_arguments_are_refused_at_once(option, message):
    with pytest.raises(ConfigError, match=message):
        IMDB(**option)


def test_a_fraction_that_leaves_a_part_empty(folder):
    with pytest.raises(ConfigError, match="into 40 and 0"):
        ready(folder, validation_fraction=0.001)


class Mean(LightningModule):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(16, 2)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.embedding(batch.inputs).mean(1), batch.targets)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx))

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_it_serves_a_trainer(folder, fraction):
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    data, module = IMDB(folder, validation_fraction=fraction, **SIZES), Mean()
    trainer.fit(module, data)
    assert trainer.global_step == 2 * (40 - 40 * fraction) / 8
    assert ("val/loss" in trainer.callback_metrics) == bool(fraction)
    assert "test/loss" in trainer.test(module, data, verbose=False)[0]


def test_the_library_does_not_import_the_data_side():
    code = "import sys, seqnets; sys.exit(any(m in sys.modules for m in ('seqnets.data', 'lightning', 'tokenizers')))"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


REAL = os.environ.get("SEQNETS_DATA")  # before the fixture takes it away


@pytest.mark.skipif(not REAL, reason="SEQNETS_DATA names no folder of real data")
def test_the_real_reviews():
    data = ready(Path(REAL) / "imdb", vocab_size=20_000, max_tokens=200)
    assert data.provenance()["rows"] == {"train": 25_000, "test": 25_000}
    assert len(data.encoder.words) == 19_997
    assert data.encoder.words[:8] == ["the", "and", "a", "of", "to", "is", "br", "in"]
    inputs, targets = everything(data.test_dataloader())
    assert inputs.shape == (25_000, 200)
    assert inputs.max() == 19_999
    assert targets.bincount().tolist() == [12_500, 12_500]
