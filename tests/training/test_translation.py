"""Translation from end to end, on made captions: run, resume, evaluate, predict."""

import json

import pytest
import torch

import predict
from seqnets.training import evaluate, train
from tests.data.synthetic import multi30k
from tests.training.helpers import assert_same, compose, ended_by

SMALL = [
    "data.vocab_size=300",
    "data.batch_size=8",
    "data.eval_batch_size=4",
    "model.net.source.embedding_dim=6",
    "model.net.encoder.hidden_size=5",
    "model.net.target.embedding_dim=6",
    "model.net.decoder.hidden_size=7",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "task.beam=2",
    "model.backend=aten",  # no compiler is waited for
]
NO_PICTURE = ["callbacks.attention=null"]


def run(data, folder, *overrides):
    cfg = compose("+experiment=multi30k_en_de", f"data.path={data}", f"run_dir={folder}", *SMALL, *overrides)
    return train(cfg)


@pytest.fixture
def captions(tmp_path, monkeypatch):
    return multi30k(tmp_path / "multi30k", monkeypatch)


def test_a_run_leaves_bleu_translations_and_a_picture(captions, tmp_path, capsys):
    metrics, _ = run(captions, tmp_path / "run", "callbacks.attention.rows=[0]")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "finished" and result["tested"].endswith("best.ckpt")
    assert 0 <= result["metrics"]["test/bleu"] <= 100
    assert {"train/perplexity", "val/perplexity", "test/perplexity", "val/loss"} <= metrics.keys()
    assert "tok:13a" in (tmp_path / "run" / "train.log").read_text()
    first, *entries = (tmp_path / "run" / "translations.txt").read_text().split("\n\n")
    assert first.startswith(f"BLEU {metrics['test/bleu']:.2f}  nrefs:1")
    assert len(entries) == 10
    names, texts = zip(*(line.split(maxsplit=1) for line in entries[0].splitlines()[:2]), strict=True)
    assert names == ("source", "reference")
    assert texts[0] in (captions / "test_2016_flickr.en").read_text().splitlines()
    assert (tmp_path / "run" / "attention.png").read_bytes().startswith(b"\x89PNG")

    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    figures = evaluate(compose(f"ckpt_path={checkpoint}", "trainer.accelerator=cpu", name="evaluate"))
    assert figures == {name: value for name, value in metrics.items() if name.startswith("test/")}

    capsys.readouterr()
    sentences = ["A dog runs on the beach.", "The girl sleeps in the water."]
    predict.main([str(checkpoint), *sentences, "--beam", "3", "--json"])
    predictions = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [a["text"] for a in predictions] == sentences and all("translation" in a for a in predictions)
    predict.main([str(checkpoint), *sentences, "--beam", "3"])
    assert capsys.readouterr().out.splitlines() == [a["translation"] for a in predictions]
    with pytest.raises(SystemExit):
        predict.main([str(checkpoint), "A dog.", "--beam", "0"])
    assert "beam is 0" in capsys.readouterr().err


def test_into_french_with_another_cell(captions, tmp_path):
    _, objects = run(
        captions, tmp_path / "run", *NO_PICTURE, "data.target_language=fr", "model/cell=gru", "trainer.max_epochs=1"
    )
    assert objects["task"].translations[0].reference in (captions / "test_2016_flickr.fr").read_text().splitlines()


@pytest.mark.parametrize("step", [3, 8])
def test_resumed_run_equals_uninterrupted_one(step, captions, tmp_path):
    options = [*NO_PICTURE, "callbacks.last_checkpoint.every_n_train_steps=2"]
    whole, _ = run(captions, tmp_path / "whole", *options)
    with pytest.raises(RuntimeError, match="on purpose"):
        run(captions, tmp_path / "ended", *options, *ended_by("Fail", step))
    torch.manual_seed(99)
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    resumed, _ = run(captions, tmp_path / "resumed", *options, f"ckpt_path={last}")
    assert_same(tmp_path / "whole", tmp_path / "resumed")
    assert {k: v for k, v in resumed.items() if "/" in k} == {k: v for k, v in whole.items() if "/" in k}
