"""Loss over streams, with the state carried on; text generated."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from seqnets.data.streams import eval_streams
from seqnets.errors import ConfigError
from seqnets.models import LanguageModel
from seqnets.tasks import LanguageModelling
from tests.tasks.trainers import quiet

IDS = torch.randint(0, 11, (83,), generator=torch.Generator().manual_seed(0))
SGD = partial(torch.optim.SGD, lr=0.0)


def test_cut_into_chunks_the_loss_is_that_of_the_whole_text(tmp_path):
    model = LanguageModel("lstm", 11, 4, 5, num_layers=2)
    with torch.no_grad():
        rows = IDS[:82].view(2, 41)
        expected = F.cross_entropy(model(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
    for steps in (7, 40):
        data = eval_streams(IDS, 2, steps, 0)
        task = LanguageModelling(model, SGD)
        run = quiet(tmp_path)
        run.fit(task, data, data)
        figures = dict(run.callback_metrics)
        run.test(task, data, verbose=False)
        figures |= run.callback_metrics
        for part in ("train", "val", "test"):
            torch.testing.assert_close(figures[f"{part}/loss"], expected)
            torch.testing.assert_close(figures[f"{part}/perplexity"], expected.exp())
    bits = LanguageModelling(model, SGD, figure="bits_per_character")
    run = quiet(tmp_path)
    run.test(bits, data, verbose=False)
    torch.testing.assert_close(run.callback_metrics["test/bits_per_character"], expected / torch.tensor(2.0).log())


def test_every_epoch_starts_from_zeros(tmp_path):
    task = LanguageModelling(LanguageModel("gru", 11, 4, 5), SGD)
    losses = []
    task.on_train_epoch_end = lambda: losses.append(float(task.trainer.callback_metrics["train/loss"]))
    run = quiet(tmp_path)
    run.fit_loop.max_epochs = 3
    run.fit(task, eval_streams(IDS, 2, 7, 0))
    assert len(set(losses)) == 1


def test_no_gradient_flows_out_of_a_chunk():
    task = LanguageModelling(LanguageModel("gru", 11, 4, 5), SGD)
    for batch in eval_streams(IDS, 2, 7, 0):
        loss, _ = task.loss(batch, "test")
        loss.backward()  # would fail the second time if it reached into the chunk before
        _, state = task._carried["test"]
        assert not any(s.requires_grad for layer in state for s in layer)


def test_the_penalties_are_minimised_and_not_reported():
    batch = next(iter(eval_streams(IDS, 2, 7, 0)))
    model = LanguageModel("lstm", 11, 4, 5)
    task = LanguageModelling(model, SGD, activation_penalty=2.0, slowness_penalty=3.0)
    found = model(batch.inputs)
    minimized, plain = task.loss(batch, "fit")
    extra = 2 * found.dropped.pow(2).mean() + 3 * (found.outputs[1:] - found.outputs[:-1]).pow(2).mean()
    torch.testing.assert_close(minimized, plain + extra)
    assert task.loss(batch, "val")[0] == LanguageModelling(model, SGD).loss(batch, "val")[0]


def test_shorter_chunks_take_shorter_steps(tmp_path):
    """A chunk of T steps learns with lr · T / steps."""

    def moved(steps):
        torch.manual_seed(0)
        model = LanguageModel("gru", 11, 4, 5)
        before = model.softmax.bias.detach().clone()
        task = LanguageModelling(model, partial(torch.optim.SGD, lr=0.5), steps=steps)
        quiet(tmp_path, limit_train_batches=1, gradient_clip_val=0.01).fit(task, eval_streams(IDS, 2, 7, 0))
        return model.softmax.bias.detach() - before

    torch.testing.assert_close(moved(14), moved(None) / 2)
    torch.testing.assert_close(moved(7), moved(None))


def test_text_is_generated_from_the_softmax():
    model = LanguageModel("lstm", 11, 4, 5).eval()
    task = LanguageModelling(model, SGD)
    with torch.no_grad():
        greedy = task.generate(IDS[:5], 6, 0.0, torch.Generator().manual_seed(0))
        tokens = IDS[:5]
        for _ in range(6):  # anew from the start each time
            tokens = torch.cat([tokens, model(tokens[None]).logits[0, -1].argmax().view(1)])
        assert torch.equal(greedy, tokens[5:])
        first, second = (task.generate(IDS[:5], 40, 1.0, torch.Generator().manual_seed(s)) for s in (1, 1))
        assert torch.equal(first, second)
        assert not torch.equal(first, task.generate(IDS[:5], 40, 1.0, torch.Generator().manual_seed(2)))
        assert task.generate(IDS[:5], 0, 1.0, torch.Generator()).shape == (0,)


def test_an_unknown_figure_is_refused():
    with pytest.raises(ConfigError, match="perplexity, bits_per_character"):
        LanguageModelling(LanguageModel("gru", 11, 4, 5), SGD, figure="accuracy")
