"""Loss, perplexity and BLEU of translation, against figures computed by hand."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import seqnets
from seqnets.data import Batch, SentenceEncoder
from seqnets.data.sentences import END, PAD, START
from seqnets.errors import ConfigError
from seqnets.models import Translator
from seqnets.tasks import Translation
from seqnets.tasks.translation import late

TEXTS = ["Ein Hund läuft am Strand entlang.", "Der Mann schläft im Wasser nicht.", "Das Mädchen liest."]


def task(words=300, **options):
    model = Translator(
        nn.Embedding(words, 4), seqnets.GRU(4, 5, bidirectional=True), nn.Embedding(words, 4), seqnets.GRU(4, 5)
    )
    return Translation(model, partial(torch.optim.SGD, lr=0.1), **options).eval()


def batch():
    inputs = torch.tensor([[5, 6, 7], [8, 0, 0]])
    targets = torch.tensor([[9, END, 0, 0, 0], [7, 8, 9, 6, END]])
    return Batch(inputs, targets, torch.tensor([3, 1]))


def by_hand(one, data):
    log_p = one.model.logits(one.model(data.inputs, late(data.targets), data.lengths)).log_softmax(-1)
    real = [(b, t) for b in range(2) for t in range(5) if data.targets[b, t] != PAD]
    return torch.stack([log_p[b, t] for b, t in real]), torch.tensor([int(data.targets[b, t]) for b, t in real])


def test_the_decoder_reads_the_target_one_word_late():
    assert late(torch.tensor([[5, 6, END], [7, END, PAD]])).tolist() == [[START, 5, 6], [START, 7, END]]


def test_loss_is_of_words_alone_and_smooth_in_training_only():
    data = batch()
    plain, smooth = task(10), task(10, label_smoothing=0.2)
    smooth.load_state_dict(plain.state_dict())
    log_p, words = by_hand(plain, data)
    expected = -log_p.gather(1, words[:, None]).mean()
    for part in ("fit", "val", "test"):
        loss, (entropy, count) = plain.loss(data, part)
        assert count == 7
        torch.testing.assert_close((loss, entropy), (expected, expected.detach()))
    torch.testing.assert_close(smooth.loss(data, "val")[0], expected)
    loss, (entropy, _) = smooth.loss(data, "fit")
    torch.testing.assert_close(loss, F.cross_entropy(log_p, words, label_smoothing=0.2))
    torch.testing.assert_close(entropy, expected.detach())


def test_means_are_weighted_by_words():
    figures = task().metrics()
    for entropy, count in ((1.0, 30), (4.0, 10)):
        task().update(figures, torch.tensor(9.0), (torch.tensor(entropy), count), batch())
    assert float(figures["loss"].compute()) == pytest.approx(1.75)
    assert float(figures["perplexity"].compute()) == pytest.approx(math.exp(1.75))


class Knowing(Translation):
    """Finds `found` whatever it is given."""

    def translate(self, inputs, lengths=None, beam=None):
        ids, self.found = self.found[: len(inputs)], self.found[len(inputs) :]
        return ids, torch.zeros(len(ids))


@pytest.mark.parametrize(("texts", "perfect"), [(TEXTS, True), (TEXTS[::-1], False)])
def test_bleu_of_a_perfect_output_is_100(texts, perfect):
    encoder = SentenceEncoder.fit(TEXTS, TEXTS, 300)
    one = task()
    one.__class__ = Knowing
    one.found = encoder.encode(texts, "target")
    logged = {}
    one.log = lambda name, value, **_: logged.update({name: value})
    one.setup("test")
    one._trainer = SimpleNamespace(datamodule=SimpleNamespace(encoder=encoder))
    one.on_test_start()
    targets = encoder.encode(TEXTS, "target")
    for rows in (slice(0, 2), slice(2, 3)):  # over the whole split, not the mean of batches
        inputs = encoder.encode(TEXTS)[rows]
        one.test_step(Batch(inputs, targets[rows], (inputs != PAD).sum(1)), 0)
    one.on_test_epoch_end()
    assert [t.reference for t in one.translations] == [t.source for t in one.translations] == TEXTS
    assert [t.translation for t in one.translations] == texts
    assert (logged["test/bleu"] > 99.9) == perfect
    assert one.signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert "test/bleu" in one.logged


def test_translations_hold_no_padding_and_do_not_hang_on_the_batch():
    torch.manual_seed(0)
    one = task(12)
    one.model.bias.data[END] = 0.5  # so that they end
    data = batch()
    ids, scores = one.translate(data.inputs, data.lengths, 3)
    assert not torch.isin(ids, torch.tensor([PAD, START])).any()
    alone, score = one.translate(data.inputs[1:, :1], data.lengths[1:], 3)
    assert (alone == END).any() and (ids[1] == END).any()
    written = min(alone.shape[1], ids.shape[1])
    assert torch.equal(ids[1, :written], alone[0, :written])
    torch.testing.assert_close(score[0], scores[1])
    assert one.translate(data.inputs, data.lengths, 1)[0].shape[0] == 2


def test_what_is_read_is_told_for_each_step_though_the_translation_does_not_end():
    encoder = SentenceEncoder.fit(TEXTS, TEXTS, 300)
    one = task()
    one.model.bias.data[END] = -1e3
    steps = {}
    one.model.decoder.register_forward_pre_hook(lambda _, args: steps.update(decoder=len(args[0])))
    labels = one.read(encoder, TEXTS[0])["decoder"]
    assert labels[0] == "<start>" and len(labels) == steps["decoder"]


def test_one_answer_for_each_sentence():
    encoder = SentenceEncoder.fit(TEXTS, TEXTS, 300)
    predictions = task().predict(encoder, (), TEXTS * 30, beam=2)
    assert [a.fields["text"] for a in predictions] == TEXTS * 30
    assert predictions[0].line == predictions[0].fields["translation"] == predictions[3].line
    for beam in (0, 1.5, True):
        with pytest.raises(ValueError, match="beam is"):
            task().predict(encoder, (), TEXTS, beam=beam)


@pytest.mark.parametrize("option", [{"beam": 0}, {"label_smoothing": 1.0}, {"length_penalty": None}])
def test_wrong_options_are_refused(option):
    with pytest.raises(ConfigError, match=f"task.{next(iter(option))} is"):
        task(**option)


def test_an_embedding_too_small_for_the_subwords_is_refused():
    encoder = SentenceEncoder.fit(TEXTS, TEXTS, 300)
    with pytest.raises(ConfigError, match="an embedding of model.net only 20"):
        task(20).check(SimpleNamespace(encoder=encoder, example=batch))
