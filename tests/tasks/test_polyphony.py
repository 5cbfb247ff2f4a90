"""The likelihood of music, against sums by hand; compositions as MIDI files."""

import math
from functools import partial

import mido
import pytest
import torch
from torch import nn

import seqnets
from seqnets.data import Chorales
from seqnets.data.batch import Batch
from seqnets.models import StepPredictor
from seqnets.tasks import Polyphony
from tests.data.synthetic import chorales
from tests.tasks.trainers import quiet


@pytest.fixture
def task():
    return Polyphony(StepPredictor(seqnets.GRU(88, 5), 88, dropout=0.5), partial(torch.optim.SGD, lr=0.0))


def by_hand(model, batches):
    """Nats and steps, hits and all true or predicted notes."""
    nats = steps = hits = of = 0
    for inputs, targets, lengths in batches:
        for row, notes, length in zip(inputs, targets, lengths, strict=True):
            p = model(row[None, :length])[0].detach().sigmoid()
            notes = notes[:length]
            nats -= float(torch.where(notes > 0, p, 1 - p).log().sum())
            steps += int(length)
            hits += int(((p > 0.5) & (notes > 0)).sum())
            of += int(((p > 0.5) | (notes > 0)).sum())
    return nats / steps, hits / of


def test_figures_are_means_over_all_steps_of_all_pieces(task, tmp_path, monkeypatch):
    data = Chorales(path=chorales(tmp_path / "here", monkeypatch), batch_size=3, eval_batch_size=4)
    nn.init.normal_(task.model.head.bias, std=2.0)
    task.model.dropout.p = 0.0
    trainer = quiet(tmp_path)
    trainer.fit(task, datamodule=data)
    figures = dict(trainer.callback_metrics)
    trainer.test(task, datamodule=data, verbose=False)
    figures |= trainer.callback_metrics
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    for part, loader in loaders.items():
        nats, accuracy = by_hand(task.model, loader)
        assert float(figures[f"{part}/loss"]) == pytest.approx(nats, rel=1e-5)
        assert float(figures[f"{part}/accuracy"]) == pytest.approx(accuracy, rel=1e-5)


def test_an_untrained_guess_of_a_half_is_88_bits(task):
    nn.init.zeros_(task.model.head.weight)
    nn.init.zeros_(task.model.head.bias)
    loss, _ = task.loss(Batch(torch.zeros(2, 7, 88), torch.zeros(2, 7, 88)), "val")
    assert float(loss.detach()) == pytest.approx(88 * math.log(2))


def test_padding_does_not_matter_to_loss_figures_and_gradients(task):
    task.eval()
    notes, lengths = (torch.rand(2, 6, 88) < 0.1).float(), torch.tensor([6, 2])
    found = []
    for padding in (0.0, 1.0, math.nan):
        inputs, targets = notes.clone(), notes.clone()
        inputs[1, 2:] = targets[1, 2:] = padding
        task.zero_grad()
        batch = Batch(inputs, targets, lengths)
        loss, of = task.loss(batch, "fit")
        loss.backward()
        found.append(
            [
                loss.detach(),
                *task.of_step(loss.detach(), of, batch).values(),
                *(p.grad.clone() for p in task.parameters()),
            ]
        )
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=0)


def test_compositions_are_midi_files_that_the_seed_decides(task, tmp_path):
    task.eval()
    names = [str(tmp_path / f"{name}.mid") for name in "abcd"]
    (first,) = task.predict(None, (), names[:1], length=10, seed=1)
    task.predict(None, (), names[1:3], length=10, seed=1)
    task.predict(None, (), names[3:], length=10, seed=2)
    a, b, c, d = ((tmp_path / f"{name}.mid").read_bytes() for name in "abcd")
    assert a == b and len({a, c, d}) == 3
    on = sum(message.type == "note_on" for message in mido.MidiFile(names[0]))
    assert first.fields == {"file": names[0], "steps": 10, "notes": on, "temperature": 1.0, "seed": 1}
    assert first.line == f"wrote {names[0]}: 10 quarters, {on} notes, temperature 1, seed 1"


def test_a_low_temperature_takes_what_is_likely(task):
    nn.init.zeros_(task.model.head.weight)
    with torch.no_grad():
        task.model.head.bias.fill_(-1.0)[40] = 1.0
    task.train()
    roll = task.compose(20, temperature=0.01)
    assert roll.shape == (20, 88) and roll.dtype == torch.uint8
    assert roll[:, 40].all() and roll.sum() == 20
    assert task.model.training  # as before
    assert task.compose(20, temperature=100.0).float().mean() > 0.3


def test_nothing_is_overwritten_and_nothing_wrong_is_written(task, tmp_path):
    (tmp_path / "mine.mid").write_text("mine")
    new = str(tmp_path / "new.mid")
    wrong = {
        "exists and is not overwritten": [new, str(tmp_path / "mine.mid")],
        "does not end in .mid": [new, str(tmp_path / "new.wav")],
        "there is no folder": [new, str(tmp_path / "none" / "new.mid")],
        "given twice": [new, new],
    }
    for told, given in wrong.items():
        with pytest.raises(ValueError, match=told):
            task.predict(None, (), given)
    for told, options in {
        "length is 0": {"length": 0},
        "temperature is -1": {"temperature": -1.0},
        "temperature is inf": {"temperature": math.inf},
        "seed is -1": {"seed": -1},
        "temperature is nan": {"temperature": math.nan},
    }.items():
        with pytest.raises(ValueError, match=told):
            task.predict(None, (), [new], **options)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.mid"]
    assert (tmp_path / "mine.mid").read_text() == "mine"
