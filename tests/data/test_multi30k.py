"""Captions in two languages: read, checked, turned into subwords and back, given out as padded pairs."""

import gzip
import os
from pathlib import Path

import pytest
import torch

from seqnets.data import Multi30k, SentenceEncoder, encoder_from_dict
from seqnets.data import multi30k as module
from seqnets.data.sentences import END, FIRST_SUBWORD, PAD
from seqnets.errors import ConfigError, DataError
from tests.data.synthetic import multi30k

REAL = os.environ.get("SEQNETS_DATA")  # before fixtures hide it


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return multi30k(tmp_path / "multi30k", monkeypatch)


def ready(folder, **options):
    data = Multi30k(folder, **{"vocab_size": 300, "batch_size": 8, "eval_batch_size": 4, **options})
    data.prepare_data()
    data.setup("fit")
    return data


def lines(folder, name):
    return (folder / name).read_text(encoding="utf-8").splitlines()


def test_batches_are_the_captions_of_both_languages(folder):
    data = ready(folder)
    assert data.provenance()["rows"] == {"train": 40, "validation": 8, "test": 10}
    pairs = {(a, b) for a, b in zip(lines(folder, "train.en"), lines(folder, "train.de"), strict=True)}
    for batch in data.train_dataloader():
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert torch.equal(batch.lengths, (batch.inputs != PAD).sum(1))
        assert batch.inputs.shape[1] == batch.lengths.max()  # cut to the longest
        ends = (batch.targets == END).long().argmax(1)
        assert torch.equal(ends + 1, (batch.targets != PAD).sum(1))  # the end is the last that is no padding
        sentences = data.encoder.decode(batch.inputs, "source"), data.encoder.decode(batch.targets)
        assert set(zip(*sentences, strict=True)) <= pairs
    tested = [s for batch in data.test_dataloader() for s in data.encoder.decode(batch.targets)]
    assert sorted(tested) == sorted(lines(folder, "test_2016_flickr.de"))


def test_the_languages_may_be_others(folder):
    data = ready(folder, source_language="fr", target_language="en")
    batch = data._splits["train"].__getitems__([3])
    assert data.encoder.decode(batch.inputs, "source") == [lines(folder, "train.fr")[3]]
    assert data.encoder.decode(batch.targets) == [lines(folder, "train.en")[3]]
    assert "chien" in data.encoder.usage


def test_decoding_gives_back_whatever_was_encoded(folder):
    encoder = encoder_from_dict(ready(folder).encoder.to_dict())
    texts = ["Der Hund läuft am Strand.", 'Zwei  "Größen" <end> [PAD], 3 € & 🐕!', "слово"]
    assert encoder.decode(encoder.encode(texts, "target")) == texts
    assert encoder.decode(encoder.encode(texts), "source") == texts
    assert encoder.encode(texts).min() == PAD and encoder.encode(texts[:1]).min() >= FIRST_SUBWORD
    assert "".join(encoder.pieces(encoder.encode(texts, "target")[0])).strip() == texts[0]
    with pytest.raises(ValueError, match="sentence 1 .* holds no word"):
        encoder.encode(["fine", "  "])


def test_subwords_are_those_of_the_training_split_and_always_the_same(folder):
    sources, targets = lines(folder, "train.en"), lines(folder, "train.de")
    encoder = ready(folder).encoder
    assert encoder.to_dict() == SentenceEncoder.fit(sources, targets, 300).to_dict()
    assert encoder.vocab_size <= 300
    assert len(encoder.pieces(encoder.encode(["A dog runs in the water."])[0], "source")) < 12


def test_a_description_that_is_none_is_refused():
    for state in (
        {"kind": "sentences"},
        {"kind": "sentences", "source": "x", "target": "y"},
        {"kind": "sentences", "source": 3, "target": 3},
    ):
        with pytest.raises((LookupError, TypeError, ValueError)):
            encoder_from_dict(state)


def test_the_cache_gives_the_same_and_knows_what_it_hangs_on(folder, monkeypatch):
    first = ready(folder)
    fit = SentenceEncoder.fit
    monkeypatch.setattr(SentenceEncoder, "fit", lambda *args: pytest.fail("encoded again"))
    second = ready(folder, seed=5, batch_size=3)
    assert first.encoder.to_dict() == second.encoder.to_dict()
    assert torch.equal(first._splits["test"].targets, second._splits["test"].targets)
    monkeypatch.setattr(SentenceEncoder, "fit", fit)
    assert ready(folder, vocab_size=270).encoder.to_dict() != first.encoder.to_dict()
    assert ready(folder, target_language="fr").encoder.to_dict() != first.encoder.to_dict()
    other = SentenceEncoder.fit(["a b"] * 2, ["c d"] * 2, 270)
    assert ready(folder, encoder=other).encoder.to_dict() == other.to_dict()


def test_files_may_be_packed(folder):
    for file in list(folder.iterdir()):
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert ready(folder).provenance()["rows"]["test"] == 10


def test_missing_and_damaged_files_are_named(folder, tmp_path, monkeypatch):
    file = folder / "val.de"
    content = file.read_bytes()
    file.write_bytes(content[:-3])
    with pytest.raises(DataError, match=r"val\.de is not the file that is published.*val\.de\.gz"):
        ready(folder)
    file.unlink()
    with pytest.raises(DataError, match=r"lacks val\.de: download https://"):
        ready(folder)
    with pytest.raises(DataError, match="is not a folder"):
        ready(tmp_path / "nowhere")
    monkeypatch.setenv("SEQNETS_DATA", str(tmp_path / "empty"))
    with pytest.raises(DataError, match="there is no folder multi30k"):
        Multi30k(source="local").setup()


def test_files_that_do_not_pair_are_refused(folder, monkeypatch):
    import hashlib

    file = folder / "val.de"
    file.write_bytes(file.read_bytes() + b"Noch einer.\n")
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(module.FILES, "val.de", module.FILES["val.de"]._replace(sha256=sha))
    with pytest.raises(DataError, match="val has 8 lines of en, but 9 of de"):
        ready(folder)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"source_language": "cs"}, "source_language is 'cs', but Multi30k is in en, de, fr"),
        ({"target_language": "en"}, "both en"),
        ({"vocab_size": 100}, "vocab_size is 100, but must be an integer of at least 259"),
        ({"source": "hub"}, "no source 'hub'"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_wrong_arguments_are_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        Multi30k(**option)


@pytest.mark.skipif(REAL is None or not Path(REAL, "multi30k").exists(), reason="SEQNETS_DATA has no real captions")
def test_the_real_captions():
    data = Multi30k(Path(REAL, "multi30k"))
    data.setup()
    assert data.provenance()["rows"] == {"train": 29_000, "validation": 1_014, "test": 1_000}
    real = Path(REAL, "multi30k", "test_2016_flickr.de").read_text(encoding="utf-8").splitlines()
    assert data.encoder.decode(data._splits["test"].targets) == [line.strip() for line in real]  # what BLEU refers to
    assert data.encoder.vocab_size == 5_000
