"""Long texts as parallel streams."""

import os
from pathlib import Path

import pytest
import torch

from seqnets.data import PennTreebank, TinyShakespeare, WikiText2, corpora, encoder_from_dict
from seqnets.data.streams import Chunks, Streams, eval_streams, train_streams
from seqnets.data.vocabulary import CharacterEncoder, WordEncoder
from seqnets.errors import ConfigError, DataError
from tests.data import synthetic

REAL = os.environ.get("SEQNETS_DATA")  # before the fixture takes it away


def test_each_row_goes_on_where_it_stopped():
    ids = torch.arange(103)
    batches = list(eval_streams(ids, 4, 7, 0))
    rows = torch.cat([inputs for inputs, *_ in batches], 1)
    assert torch.equal(
        rows, ids[:100].view(4, 25)[:, :-1]
    )  # three ids are left over, the last of a row is a target only
    assert all(torch.equal(targets, inputs + 1) for inputs, targets, _ in batches)
    assert [inputs.shape[1] for inputs, *_ in batches] == [7, 7, 7, 3]


def test_jittered_chunks_cover_all_steps_in_as_many_batches():
    chunks = Chunks(10_000, 70, jitter=True, seed=3)
    slices = list(chunks)
    assert [s.stop for s in slices[:-1]] == [s.start for s in slices[1:]]
    assert (slices[0].start, slices[-1].stop, len(slices)) == (0, 10_000, len(chunks))
    lengths = [s.stop - s.start for s in slices]
    assert min(lengths) >= 1
    assert len(set(lengths)) > 5
    assert list(chunks) == slices  # by seed and epoch alone
    chunks.set_epoch(1)
    assert list(chunks) != slices


@pytest.mark.parametrize("jitter", [False, True])
def test_a_loader_resumes_in_mid_epoch(jitter):
    def loader(**changed):
        return train_streams(
            torch.arange(1000),
            **{"batch_size": 4, "steps": 20, "jitter": jitter, "seed": 1, "num_workers": 0, **changed},
        )

    whole = loader()
    whole.sampler.set_epoch(2)
    batches, state = [], None
    for number, batch in enumerate(whole, 1):
        batches.append(batch)
        if number == 5:
            state = whole.state_dict()
    resumed = loader()
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == len(batches) - 5
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(batches[5:], rest, strict=True))
    with pytest.raises(ConfigError, match="steps was 20, is 10"):
        loader(steps=10).load_state_dict(state)
    with pytest.raises(ConfigError, match="batch"):
        loader(batch_size=5).load_state_dict(state)


def test_characters_and_words_come_back_from_their_ids():
    characters = CharacterEncoder.fit("to be, or not", 20)
    assert characters.decode(characters.encode(["rob"])[0].tolist()) == "rob"
    words = WordEncoder.fit("the company said\nthe market fell\n", 20)
    ids = words.encode(["the market said\nthe crash"])[0]
    assert words.decode(ids.tolist()) == "the market said\nthe <unk>"
    for encoder in (characters, words):
        assert encoder_from_dict(encoder.to_dict()).to_dict() == encoder.to_dict()
    assert len(WordEncoder.fit("a a b b c", 4)) == 4  # <eos>, <unk>, a, b
    with pytest.raises(ValueError, match="has 'z', which the training text has not"):
        characters.encode(["zoo"])
    with pytest.raises(ValueError, match="no word"):
        words.encode([" "])


def test_a_play_is_split_in_order(tmp_path, monkeypatch):
    folder = synthetic.play(tmp_path / "play", monkeypatch)
    data = TinyShakespeare(folder, vocab_size=10, steps=8, batch_size=4, eval_batch_size=2)
    data.setup()
    text = (folder / "input.txt").read_text()
    splits = [data.encoder.decode(data._splits[name].tolist()) for name in ("train", "validation", "test")]
    assert "".join(splits) == text
    assert [len(s) for s in splits] == [1800, 100, 100]
    assert data.provenance()["rows"] == {"train": 1800, "validation": 100, "test": 100}
    assert data.example().inputs.shape == (1, 1)
    assert sum(targets.numel() for _, targets, _ in data.test_dataloader()) == 99  # one stream: all but the first


def test_what_is_not_text_is_refused(tmp_path):
    for name in ("train", "valid", "test"):
        (tmp_path / f"wiki.{name}.tokens").write_bytes(b"caf\xe9 \n" * 20)
    with pytest.raises(DataError, match="not UTF-8"):
        WikiText2(tmp_path).setup()


def test_blank_lines_of_the_hub_are_lines(monkeypatch, tmp_path):
    """The hub's rows are lines without the end of blank ones; on disk the same text has them."""
    lines = [" = A = ", "", " words <unk> . ", ""]
    rows = [f"{line}\n" if line else "" for line in lines]
    monkeypatch.setattr(
        corpora, "load_from_hub", lambda *name: ({split: {"text": rows} for split in WikiText2.FILES}, "")
    )
    for name in ("train", "valid", "test"):
        (tmp_path / f"wiki.{name}.tokens").write_text("".join(f"{line or ' '}\n" for line in lines))
    ids = []
    for data in (WikiText2(source="hub", vocab_size=20), WikiText2(tmp_path, vocab_size=20)):
        data.setup()
        ids.append(data._splits["train"].tolist())
    assert ids[0] == ids[1]


def test_sentences_end_with_their_own_token(tmp_path, monkeypatch):
    folder = synthetic.sentences(tmp_path / "ptb", monkeypatch)
    data = PennTreebank(folder, vocab_size=7, batch_size=2)
    data.setup()
    assert data.provenance()["rows"] == {"train": 600, "validation": 300, "test": 200}
    assert set(data.encoder.words) == {"<eos>", "<unk>", "the", "company", "said", "N"}


def test_wikitext_wants_all_three_files(tmp_path):
    for name in ("valid", "test"):
        (tmp_path / f"wiki.{name}.tokens").write_text(" = A = \n words <unk> \n")
    with pytest.raises(DataError, match=r"lacks wiki\.train\.tokens: it is one of the files of Salesforce/wikitext"):
        WikiText2(tmp_path).setup()
    (tmp_path / "wiki.train.tokens").write_text(" = B = \n more words <unk> \n")
    data = WikiText2(tmp_path, vocab_size=20, batch_size=2)
    data.setup()
    assert data.provenance()["source"] == "local"
    assert data.provenance()["rows"]["train"] == 8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 5, "jitter": True}, "jitter varies steps of 20 or more"),
        ({"vocab_size": 1}, "vocab_size is 1"),
        ({"source": "hub"}, "auto, local, download"),
    ],
)
def test_what_cannot_work_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        PennTreebank(**wrong)


def test_a_text_of_more_characters_than_the_model_has_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="set data.vocab_size=7"):
        TinyShakespeare(synthetic.play(tmp_path / "play", monkeypatch), vocab_size=5).setup()
    with pytest.raises(DataError, match="too few for 20 streams"):
        Streams(torch.arange(30), 20)


@pytest.mark.skipif(REAL is None or not Path(REAL, "ptb").exists(), reason="SEQNETS_DATA has no Penn Treebank")
def test_the_real_penn_treebank_has_its_published_counts():
    data = PennTreebank(Path(REAL, "ptb"))
    data.setup()
    assert data.provenance()["rows"] == {"train": 929_589, "validation": 73_760, "test": 82_430}
    assert len(data.encoder) == 10_000


@pytest.mark.skipif(REAL is None or not Path(REAL, "wikitext-2").exists(), reason="SEQNETS_DATA has no WikiText-2")
def test_the_parts_of_the_real_wikitext_have_their_published_counts(tmp_path):
    for name, place in {
        "train": "valid",
        "valid": "valid",
        "test": "test",
    }.items():  # the training part cannot be had here
        (tmp_path / f"wiki.{name}.tokens").symlink_to(Path(REAL, "wikitext-2", f"wiki.{place}.tokens"))
    data = WikiText2(tmp_path, vocab_size=33_278)
    data.setup()
    assert data.provenance()["rows"] == {"train": 217_646, "validation": 217_646, "test": 245_569}
