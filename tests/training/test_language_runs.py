"""Runs of language models: resumed in mid-epoch, with averages, samples and texts that go on."""

import json

import pytest
import torch
from matplotlib.image import imread

import predict
from seqnets.errors import CheckpointError, ConfigError, SeqnetsError
from seqnets.tasks import LanguageModelling
from seqnets.training import evaluate, train
from tests.data import synthetic
from tests.training.helpers import assert_same, compose, ended_by

SMALL = [
    "data.batch_size=2", "data.steps=20", "model.net.embedding_dim=4", "model.net.hidden_size=6",
    "trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "trainer.max_epochs=2",
    "callbacks.last_checkpoint.every_n_train_steps=3",
]  # fmt: skip


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Makes a configuration: of an experiment, in a folder of its own, on made texts."""
    play, ptb = (
        synthetic.play(tmp_path / "play", monkeypatch, 500),
        synthetic.sentences(tmp_path / "ptb", monkeypatch, 30),
    )

    def configuration(experiment, folder, *overrides):
        where = (
            [f"data.path={play}", "data.vocab_size=7"]
            if "shakespeare" in experiment
            else [f"data.path={ptb}", "data.vocab_size=6"]
        )
        short = ["callbacks.samples.length=5"] if experiment in ("tinyshakespeare_charlm", "ptb_wordlm") else []
        short += ["callbacks.samples.prompt='a b'"] if "shakespeare" in experiment else []
        return compose(f"+experiment={experiment}", *where, *SMALL, *short, f"run_dir={tmp_path / folder}", *overrides)

    return configuration


EAGER = [
    "optimizer.patience=1",
    "trainer.max_epochs=4",
    "optimizer.lr=50",
    "task.activation_penalty=0",
]  # averages from early on


@pytest.mark.parametrize(
    ("experiment", "how", "step", "options"),
    [
        ("tinyshakespeare_charlm", "Fail", 8, []),
        ("tinyshakespeare_charlm", "SignalSIGTERM", 17, ["model/cell=gru", "model.backend=reference"]),
        ("ptb_wordlm", "SignalSIGTERM", 11, []),
        ("ptb_wordlm_awd", "SignalSIGTERM", 4, []),  # weights dropped, chunks of many lengths
        ("ptb_wordlm_awd", "Fail", 25, EAGER),
        ("ptb_wordlm_awd", "FailInValidation", 24, EAGER),  # while weights and averages are swapped
        ("ptb_wordlm_awd", "FailAfterValidation", 24, EAGER),  # once its loss had been observed
        ("tinyshakespeare_charlm", "FailInBackward", 8, []),  # its state had been carried on
    ],
)
def test_a_resumed_run_equals_one_that_was_not_stopped(experiment, how, step, options, runs, tmp_path):
    whole, objects = train(runs(experiment, "whole", *options))
    with pytest.raises((RuntimeError, SystemExit), match="on purpose|143"):
        train(runs(experiment, "ended", *options, *ended_by(how, step)))
    torch.manual_seed(99)
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == step + how.startswith("Signal")
    resumed, _ = train(runs(experiment, "resumed", *options, f"ckpt_path={last}"))
    assert_same(tmp_path / "whole", tmp_path / "resumed")
    assert {k: v for k, v in resumed.items() if "/" in k} == {k: v for k, v in whole.items() if "/" in k}
    if options is EAGER:
        assert objects["trainer"].optimizers[0].averaging


def test_checkpoints_and_tests_have_the_averages(runs, tmp_path):
    figures, objects = train(runs("ptb_wordlm_awd", "run", *EAGER, "test_on=last"))
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    states = objects["trainer"].optimizers[0].state
    assert checkpoint["iterates"]
    for name, value in objects["task"].named_parameters():
        assert torch.equal(value, checkpoint["state_dict"][name])  # left swapped at the end of training
        assert torch.equal(states[value]["mean"], checkpoint["iterates"][name])
    assert evaluate(
        compose(
            f"ckpt_path={tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}", "trainer.accelerator=cpu", name="evaluate"
        )
    )["test/loss"] == pytest.approx(figures["test/loss"])


def test_the_best_checkpoint_is_tested(runs, tmp_path):
    figures, _ = train(runs("tinyshakespeare_charlm", "run", "optimizer.lr=0.5", "trainer.max_epochs=4"))
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert json.loads((tmp_path / "run" / "result.json").read_text())["tested"] == str(best)
    tested = evaluate(compose(f"ckpt_path={best}", "trainer.accelerator=cpu", name="evaluate"))
    assert tested["test/loss"] == pytest.approx(figures["test/loss"])
    two = evaluate(compose(f"ckpt_path={best}", "trainer.accelerator=cpu", "data.test_batch_size=2", name="evaluate"))
    assert two["test/loss"] != tested["test/loss"]  # two streams, each from nothing on


def test_the_best_needs_something_to_be_best_on(runs, tmp_path):
    with pytest.raises(ConfigError, match=r"test_on=best .* no callbacks\.best_checkpoint"):
        train(runs("ptb_wordlm", "run", "callbacks.best_checkpoint=null"))
    with pytest.raises(ConfigError, match="must be last or best"):
        train(runs("ptb_wordlm", "run", "test_on=first"))
    assert not (tmp_path / "run").exists()


def test_samples_and_typed_prompts_go_on(runs, tmp_path, capsys):
    train(runs("tinyshakespeare_charlm", "run"))
    samples = (tmp_path / "run" / "samples.txt").read_text()
    assert samples.count("=== epoch") == 2
    assert samples.splitlines()[1].startswith("a b")
    last = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    capsys.readouterr()
    texts = []
    for options in (["--seed", "1"], ["--seed", "1"], ["--seed", "2"], ["--json", "--temperature", "0.5"]):
        predict.main([last, "abc", "--length", "30", *options])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0].rstrip("\n")) <= 33
    assert json.loads(texts[3])["continued"].startswith("abc")
    with pytest.raises(SystemExit):
        predict.main([last, "xyz"])
    assert "has 'x', which the training text has not" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict.main([last, "abc", "--beam", "3"])
    assert "LanguageModelling takes no beam; its options are: length, temperature, seed" in capsys.readouterr().err


def test_a_model_of_another_vocabulary_is_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match=r"logits of 9 tokens, but the training text has 7: set data\.vocab_size=7"):
        train(runs("tinyshakespeare_charlm", "run", "data.vocab_size=9"))


def test_what_cannot_work_is_refused_before_the_run(runs, tmp_path):
    for experiment, told, *overrides in (
        ("ptb_wordlm", "go together", "callbacks=averaged_weights"),
        ("ptb_wordlm_awd", "go together", "callbacks=lowest_loss"),  # plain SGD under another's name
        ("tinyshakespeare_charlm", "callbacks.samples: 'xyz' has 'x'", "callbacks.samples.prompt=xyz"),
        ("tinyshakespeare_charlm", "callbacks.samples: temperature is -1", "callbacks.samples.temperature=-1"),
        ("tinyshakespeare_charlm", "scheduler cannot be built", "scheduler.pct_start=3"),
        ("tinyshakespeare_charlm", "has no end", "trainer.max_epochs=-1"),
        ("tinyshakespeare_charlm", "too few for 400 streams", "data.batch_size=400"),
        ("tinyshakespeare_charlm", "model.init has no reader", "+model.init=keras"),
        ("tinyshakespeare_charlm", "does not have: trainer.limit_train_batches", "trainer.overfit_batches=2"),
        ("ptb_wordlm_awd", "task.steps is 0", "task.steps=0"),
        ("ptb_wordlm_awd", "task.slowness_penalty is -1", "task.slowness_penalty=-1"),
    ):
        with pytest.raises(SeqnetsError, match=told):
            train(runs(experiment, "run", *overrides))
        assert not (tmp_path / "run").exists()


def ended(runs, tmp_path, *options):
    with pytest.raises(RuntimeError, match="on purpose"):
        train(runs("tinyshakespeare_charlm", "ended", *options, *ended_by("Fail", 17)))
    return tmp_path / "ended" / "checkpoints" / "last.ckpt"


def test_a_learning_rate_planned_to_the_end_is_not_planned_anew(runs, tmp_path):
    last = ended(runs, tmp_path)
    with pytest.raises(
        ConfigError, match=r"planned over 24 steps, and this run has 48: resume with the trainer's limits"
    ):
        train(runs("tinyshakespeare_charlm", "resumed", f"ckpt_path={last}", "trainer.max_epochs=4"))
    assert not (tmp_path / "resumed").exists()


BEST_EARLY = "optimizer.lr=0.02"  # letters drawn at random cannot be learned, only by heart


def test_the_best_checkpoint_is_found_where_the_run_was_moved(runs, tmp_path):
    whole, _ = train(runs("tinyshakespeare_charlm", "whole", BEST_EARLY))
    last = ended(runs, tmp_path, BEST_EARLY)
    moved = last.parents[1].rename(tmp_path / "moved") / "checkpoints" / "last.ckpt"
    resumed, objects = train(runs("tinyshakespeare_charlm", "resumed", BEST_EARLY, f"ckpt_path={moved}"))
    assert resumed["test/loss"] == whole["test/loss"]
    assert objects["result"]["tested"] == str(tmp_path / "moved" / "checkpoints" / "best.ckpt")
    (tmp_path / "moved" / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(CheckpointError, match=r"best so far is gone.*test_on=last"):
        train(runs("tinyshakespeare_charlm", "again", BEST_EARLY, f"ckpt_path={moved}"))
    assert not (tmp_path / "again").exists()


def test_validation_figures_are_those_of_the_weights_that_were_tested(runs, tmp_path):
    figures, objects = train(runs("tinyshakespeare_charlm", "run", BEST_EARLY, "trainer.max_epochs=3"))
    assert figures["val/loss"] == pytest.approx(objects["callbacks"]["best_checkpoint"].score)


@pytest.mark.parametrize(
    ("experiment", "options"), [("tinyshakespeare_charlm", []), ("ptb_wordlm_awd", [*EAGER, "test_on=last"])]
)
def test_a_run_that_was_stopped_in_its_test_is_only_tested(experiment, options, runs, tmp_path, monkeypatch):
    whole, before = train(runs(experiment, "whole", *options))
    with monkeypatch.context() as patched:
        patched.setattr(LanguageModelling, "on_test_epoch_start", lambda self: fail("power"))
        with pytest.raises(RuntimeError, match="power"):
            train(runs(experiment, "ended", *options))
    last = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    resumed, objects = train(runs(experiment, "resumed", *options, f"ckpt_path={last}"))
    assert resumed["test/loss"] == whole["test/loss"]
    assert objects["trainer"].global_step == before["trainer"].global_step
    last = tmp_path / "whole" / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigError, match="all of trainer.max_epochs="):  # one that did end needs none of that
        train(runs(experiment, "again", *options, f"ckpt_path={last}"))


def fail(why):
    raise RuntimeError(why)


STOPS_EARLY = [
    "callbacks=early_stopping",
    "callbacks.early_stopping.patience=1",
    "optimizer.lr=3",
    "trainer.max_epochs=9",
    "scheduler=none",
]


def test_an_early_end_is_remembered(runs, tmp_path):
    whole, objects = train(runs("tinyshakespeare_charlm", "whole", *STOPS_EARLY))
    epochs = objects["result"]["epochs"]
    assert epochs < 9
    last = tmp_path / "whole" / "checkpoints" / "last.ckpt"
    (tmp_path / "whole" / "result.json").unlink()  # as a kill in the test leaves it
    resumed, objects = train(runs("tinyshakespeare_charlm", "resumed", *STOPS_EARLY, f"ckpt_path={last}"))
    assert objects["result"]["epochs"] == epochs
    assert resumed["test/loss"] == whole["test/loss"]


def test_another_backend_than_before_is_told(runs, tmp_path, caplog):
    last = ended(runs, tmp_path, "model.backend=aten")
    train(runs("tinyshakespeare_charlm", "resumed", "model.backend=reference", f"ckpt_path={last}"))
    log = (tmp_path / "resumed" / "train.log").read_text()
    assert "was served by aten and is by reference now" in log


def test_what_a_language_model_reads_can_be_drawn(runs, tmp_path, capsys):
    train(runs("tinyshakespeare_charlm", "run"))
    last, picture = str(tmp_path / "run" / "checkpoints" / "last.ckpt"), tmp_path / "inside.png"
    predict.main([last, "a bad cab", "--length", "3", "--plot", str(picture)])
    assert imread(picture).std() > 0.01
    for wrong in (["a", "b"], ["a"]):  # two texts; a picture that is there
        with pytest.raises(SystemExit):
            predict.main([last, *wrong, "--plot", str(picture)])
    assert "give the name of a new .png file" in capsys.readouterr().err
