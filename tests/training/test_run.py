import csv
import io
import json
import logging
import os
import sys
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from omegaconf import OmegaConf

import evaluate as evaluate_script
import predict
import train as train_script
from seqnets.errors import CheckpointError, ConfigError, RunFolderError
from seqnets.training import evaluate, load_trained, train
from seqnets.training.config import build
from tests.data import synthetic
from tests.data.synthetic import parquet, parquet_folder
from tests.data.synthetic import reviews as made_reviews
from tests.training.helpers import CONF, compose, ended_by, script, small_run

EXPERIMENTS = sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))


PARAMETERS = {  # as published, or as Keras counts
    "imdb_bilstm": 2_757_761,
    "imdb_cnn_lstm": 2_638_895,
    "imdb_lstm": 213_301,
    "mnist_lstm": 220_874,
}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs_a_batch_as_it_is(experiment, tmp_path, monkeypatch):
    data = compose(f"+experiment={experiment}").data._target_.rsplit(".")[-1]
    cfg = compose(
        f"+experiment={experiment}",
        *synthetic.data(data, tmp_path / "made", monkeypatch),
        f"run_dir={tmp_path / 'run'}",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=1",
        "trainer.limit_test_batches=1",
    )
    metrics, objects = train(cfg)
    assert metrics.keys() >= {"train/loss", "test/loss"}
    assert objects["trainer"].global_step == 1


@pytest.mark.parametrize("experiment", PARAMETERS)
def test_the_published_models_have_their_number_of_parameters(experiment):
    config = OmegaConf.to_container(compose(f"+experiment={experiment}", "run_dir=nowhere"), resolve=True)
    model = build(config["model"]["net"], "model.net")
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[experiment]


def test_a_classifier_draws_its_weights_in_the_order_that_data_flow():
    """Another order makes other weights of a seed, and other figures than are documented for it."""
    net = compose("+experiment=imdb_cnn_lstm", "run_dir=nowhere").model.net
    assert [part for part in net if part in ("embedding", "front", "recurrent")] == ["embedding", "front", "recurrent"]


def test_a_run_without_a_step_names_no_backend(reviews, tmp_path):
    _, objects = train(small_run(reviews, tmp_path / "run", "trainer.limit_train_batches=0"))
    assert objects["result"]["backend"] == "none ran"


@pytest.fixture
def run(reviews, tmp_path):
    """A finished run with validation data."""
    metrics, objects = train(small_run(reviews, tmp_path / "run", "data.validation_fraction=0.2"))
    return tmp_path / "run", metrics, objects


def test_the_run_folder_holds_what_is_promised(run):
    folder, metrics, objects = run
    config = OmegaConf.load(folder / "config.yaml")
    assert config.model.net.recurrent.hidden_size == 5
    assert not any("${" in line for line in (folder / "config.yaml").read_text().splitlines())
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["seed"] == 0
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["metrics"] == metrics
    assert (result["epochs"], result["steps"], len(result["seconds_per_epoch"])) == (2, 16, 2)
    assert result["parameters"] == sum(p.numel() for p in objects["task"].parameters())
    assert result["backend"] == "aten"
    assert result["data"]["rows"] == {"train": 32, "validation": 8, "test": 20}
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["test/accuracy"]) for row in rows if row["test/accuracy"]] == [metrics["test/accuracy"]]
    assert len([row for row in rows if row["train/loss_step"]]) == 16
    assert list((folder / "tensorboard").glob("events*"))
    assert (folder / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(folder / "checkpoints")) == ["best.ckpt", "last.ckpt"]
    log = (folder / "train.log").read_text()
    assert "40 training and 20 test reviews" in log  # also what was said before the folder was claimed
    assert "epoch 2/2" in log


def test_the_headline_is_the_last_epochs_and_needs_no_validation_data(reviews, tmp_path):
    metrics, objects = train(small_run(reviews, tmp_path / "run"))
    assert os.listdir(tmp_path / "run" / "checkpoints") == ["last.ckpt"]
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(torch.equal(w, last["state_dict"][name]) for name, w in objects["task"].state_dict().items())
    assert not any(name.startswith("val/") for name in metrics)


def test_messages_and_warnings_are_as_before_afterwards(reviews, tmp_path):
    logger, before = logging.getLogger("seqnets"), warnings.showwarning
    state = (logger.level, logger.propagate, logger.handlers[:])
    train(small_run(reviews, tmp_path / "run", "trainer.max_epochs=1"))
    assert (logger.level, logger.propagate, logger.handlers) == state
    assert warnings.showwarning is before


def test_output_into_a_pipe_is_a_few_lines(reviews, tmp_path, capsys):
    train(small_run(reviews, tmp_path / "run", "trainer.max_epochs=3"))
    out = capsys.readouterr().out
    assert len([line for line in out.splitlines() if line.startswith("epoch ")]) == 3
    assert "━" not in out
    assert len(out.splitlines()) < 30
    assert "python predict.py " in out
    assert str(tmp_path / "run" / "checkpoints" / "last.ckpt") in out


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.enable_progress_bar=false", "trainer.enable_checkpointing=false", "trainer.logger=false"],
        ["trainer.fast_dev_run=true"],
        ["trainer.log_every_n_steps=0"],
        ["trainer.gradient_clip_val=0.5", "trainer.precision=bf16-mixed", "optimizer.fused=false"],
        ["callbacks=early_stopping", "data.validation_fraction=0.2", "callbacks.early_stopping.patience=1"],
        ["model/cell=rnn_relu", "model.init=torch", "model.net.pooling=mean", "model.net.head_sizes=[7]"],
    ],
)
def test_options(overrides, reviews, tmp_path):
    metrics, _ = train(small_run(reviews, tmp_path / "run", *overrides))
    assert 0 <= metrics["test/accuracy"] <= 1


def test_the_same_seed_gives_the_same_weights_and_another_does_not(reviews, tmp_path):
    def weights(name, *overrides):
        _, objects = train(small_run(reviews, tmp_path / name, "trainer.max_epochs=1", *overrides))
        return objects["task"].state_dict()

    first, again, other = weights("first"), weights("again"), weights("other", "seed=1")
    assert all(torch.equal(first[k], again[k]) for k in first)  # the first encoded the data, the second found a cache
    assert not torch.equal(first["model.embedding.weight"], other["model.embedding.weight"])


def test_what_ends_a_run_is_recorded_and_raised(reviews, tmp_path):
    with pytest.raises(RuntimeError, match="on purpose"):
        train(small_run(reviews, tmp_path / "run", *ended_by("Fail", 3)))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["status"], result["error"]) == ("failed", "RuntimeError: ended on purpose")
    with pytest.raises(RunFolderError):
        train(small_run(reviews, tmp_path / "run"))


def test_a_checkpoint_does_not_say_where_evaluate_writes(run, tmp_path, monkeypatch):
    last = run[0] / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["seqnets"]["config"]["data"]["cache_dir"] = str(tmp_path / "somewhere")
    torch.save(content, last)
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "own"))
    evaluate(compose(f"ckpt_path={last}", "trainer.accelerator=cpu", name="evaluate"))
    assert not (tmp_path / "somewhere").exists() and list((tmp_path / "own").iterdir())


def test_evaluate_repeats_the_figures(run, tmp_path, capsys):
    folder, metrics, _ = run
    last = folder / "checkpoints" / "last.ckpt"
    figures = evaluate(compose(f"ckpt_path={last}", "trainer.accelerator=cpu", name="evaluate"))
    assert figures == {name: value for name, value in metrics.items() if name.startswith("test/")}
    assert f"{metrics['test/accuracy']:.4f}" in capsys.readouterr().out
    moved = parquet_folder(tmp_path / "moved")
    parquet(moved / "test.parquet", *made_reviews(20, 5))
    other_test = evaluate(compose(f"ckpt_path={last}", f"data.path={moved}", name="evaluate"))
    assert other_test["test/loss"] != figures["test/loss"]
    # other training reviews give another vocabulary, but it is the checkpoint's that counts
    parquet(moved / "train.parquet", *made_reviews(60, 0))
    assert evaluate(compose(f"ckpt_path={last}", f"data.path={moved}", name="evaluate")) == other_test
    assert "trained on" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="did you mean data.path"):
        evaluate(compose(f"ckpt_path={last}", "+data.pth=1", name="evaluate"))


def test_predict(run, reviews, capsys, monkeypatch):
    checkpoint = str(run[0] / "checkpoints" / "last.ckpt")
    for file in reviews.iterdir():
        file.unlink()  # nothing but the checkpoint is needed
    texts = ["I didn't like it: 3/10", "a superb = film"]
    predict.main([checkpoint, *texts])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == texts
    assert all(line.startswith(("negative  ", "positive  ")) for line in lines)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n".join(texts) + "\n"))
    predict.main([checkpoint, "-", "--json"])
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [o["text"] for o in objects] == texts
    trained = load_trained(run[0] / "checkpoints" / "last.ckpt")
    expected = trained.task.probabilities(trained.encoder.encode(texts))
    assert [o["probability"] for o in objects] == pytest.approx(expected.amax(1).tolist(), abs=1e-5)
    assert [o["label"] for o in objects] == [("negative", "positive")[k] for k in expected.argmax(1)]
    assert torch.allclose(expected.sum(1), torch.ones(2))


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ([" "], "", "text 1 of 1 is empty"),
        (["fine", ""], "", "text 2 of 2 is empty"),
        (["-"], "\n  \n", "no text on standard input"),
        (["!?"], "", "holds no word"),
    ],
)
def test_nothing_to_judge(arguments, stdin, message, run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    with pytest.raises(SystemExit) as end:
        predict.main([str(run[0] / "checkpoints" / "last.ckpt"), *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_the_scripts_are_thin():
    assert train_script.train is train
    assert evaluate_script.evaluate is evaluate


def test_multirun_and_the_scripts_themselves(reviews, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train_py, evaluate_py = (script(name, monkeypatch, capsys) for name in ("train.py", "evaluate.py"))
    few = ["data.vocab_size=40", "data.max_tokens=8", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    start = ["+experiment=imdb_bilstm", f"data.path={reviews}", *few]
    code, out, err = train_py("-m", *start, "model/cell=rnn_tanh,gru")
    assert code == 0, err
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    folders = [sweep / "0", sweep / "1"]
    table = out[out.rindex("job") :]
    assert all(f"model/cell={cell}" in table for cell in ("rnn_tanh", "gru"))
    assert "+experiment" not in table
    cells = [OmegaConf.load(folder / "config.yaml").model.cell.name for folder in folders]
    assert cells == ["rnn_tanh", "gru"]
    assert out.count("test/accuracy") >= 2
    assert not list(tmp_path.rglob(".hydra"))

    code, out, err = train_py("-m", *start, "model.cell.name=lstn,gru", "hydra.sweep.dir=more")
    assert code == 1
    assert "Traceback" not in err
    assert "1 of the sweep's jobs failed" in err
    assert "CellError: unknown cell 'lstn'" in err
    (result,) = (tmp_path / "more").rglob("result.json")  # the second job ran
    assert result.parent.name == "1"
    assert not (result.parents[1] / "0").exists()
    assert "model.cell.name=lstn: refused" in out

    code, _, err = train_py(*start, "model.net.pooling=sum", "hydra.run.dir=made/for/nothing")
    assert (code, "Traceback" in err) == (1, False)
    assert "ConfigError: " in err
    code, _, err = train_py(*start, "run_dir=made/for/nothing")
    assert err.startswith("ConfigError: run_dir is where Hydra makes the folder: give hydra.run.dir=")
    assert not (tmp_path / "made").exists()

    code, _, err = train_py(*start, f"hydra.run.dir={folders[0]}")
    assert code == 1
    assert err.startswith("RunFolderError: ")
    assert "Traceback" not in err
    (folders[1] / "checkpoints" / "last.ckpt").write_bytes(b"")
    code, _, err = evaluate_py(f"ckpt_path={folders[1] / 'checkpoints' / 'last.ckpt'}")
    assert code == 1
    assert err.startswith("CheckpointError: ")
    assert "Traceback" not in err


WRITE = {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": ["attacked"]}]}
ATTACKS = {  # what a foreign checkpoint may hold in place of a part of its configuration, and why it is refused
    "call": (WRITE, "asks for pathlib.Path to be called"),
    "list": ([WRITE], "asks for pathlib.Path to be called"),
    "tuple": ((WRITE,), "has a tuple"),
    "tensor": (torch.ones(1), "has a Tensor"),
    "interpolation": ("${oc.create:{_target_:pathlib.Path.touch,_args_:[attacked]}}", "has the interpolation"),
    "key": ({"${oc.env:HOME}": 1}, "has the interpolation"),
    "shell": ({"_target_": "os.system"}, "asks for os.system"),
    "through a module of ours": ({"_target_": "seqnets.training.environment.subprocess.run"}, "subprocess.run"),
    "ours, but no module": ({"_target_": "seqnets.training.run.train"}, "asks for seqnets"),
    "through torch": ({"_target_": "torch.nn.modules.module.warnings.warn"}, "asks for torch"),
    "hub": ({"_target_": "torch.hub.load"}, "asks for torch.hub"),
    "nothing there": ({"_target_": "torch.nn.Nope"}, "asks for torch.nn.Nope"),
    "cell": ("evil:x", "would run the code of the module evil"),
    "cell by name": ({"_target_": "seqnets.cells.get_cell", "name": "evil:x"}, "module evil.*--trust-cells"),
    "cell by place": ({"_target_": "seqnets.cells.get_cell", "_args_": ["evil:x"]}, "module evil"),
}
PLACES = {"net": "model.net.head_sizes", "recurrent": "model.net.recurrent.cell", "task": "task.num_classes"}


def foreign(run, file, place, value):
    checkpoint = torch.load(run[0] / "checkpoints" / "last.ckpt", weights_only=True)
    *parents, last = place.split(".")
    inner = checkpoint["seqnets"]["config"]
    for key in parents:
        inner = inner[key]
    inner[last] = value
    torch.save(checkpoint, file)
    return file


def test_a_checkpoint_cannot_have_anything_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("open('attacked', 'w')")
    for attack, reason in ATTACKS.values():
        for place in PLACES.values():
            file = foreign(run, tmp_path / "foreign.ckpt", place, attack)
            with pytest.raises(CheckpointError, match=reason):
                load_trained(file)
        if "evil" not in reason:  # data take no cells: there it is a text
            file = foreign(run, tmp_path / "foreign.ckpt", "data.path", attack)
            with pytest.raises(CheckpointError, match=reason):
                evaluate(compose(f"ckpt_path={file}", name="evaluate"))
    assert not (tmp_path / "attacked").exists()
    assert "evil" not in sys.modules


def test_data_of_a_checkpoint_cannot_have_cells_built(run, tmp_path):
    file = foreign(run, tmp_path / "foreign.ckpt", "data.path", ATTACKS["cell by name"][0])
    with pytest.raises(CheckpointError, match="get_cell to be called"):
        evaluate(compose(f"ckpt_path={file}", name="evaluate"))


def test_a_cell_of_ones_own_is_imported_where_it_is_trusted(reviews, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_own_cells.py").write_text(
        "import seqnets\n"
        "@seqnets.cell(gates=1, states=('h',), masks=('drop',))\n"
        "def mine(x, r, state, masks):\n"
        "    return (x[0] + r[0] * masks.drop).tanh()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mask = "+model.net.recurrent.masks={drop:{_target_:seqnets.Mask,p:0.5}}"
    train(small_run(reviews, tmp_path / "run", "model.cell.name=my_own_cells:mine", mask, "trainer.max_epochs=1"))
    last = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    predict.main([last, "fine"])  # imported already
    monkeypatch.delitem(sys.modules, "my_own_cells")
    with pytest.raises(SystemExit, match="CheckpointError.*module my_own_cells.*--trust-cells"):
        predict.main([last, "fine"])
    with pytest.raises(CheckpointError, match="trust_cells=true"):
        evaluate(compose(f"ckpt_path={last}", name="evaluate"))
    predict.main([last, "fine", "--trust-cells"])
    assert "fine" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "my_own_cells")
    assert evaluate(compose(f"ckpt_path={last}", "trust_cells=true", name="evaluate"))


def test_a_vocabulary_that_is_none_is_refused(run, tmp_path):
    checkpoint = torch.load(run[0] / "checkpoints" / "last.ckpt", weights_only=True)
    for encoder in ({}, {"words": 3, "max_tokens": 8}, {"words": ["a", "a"], "max_tokens": 8}):
        checkpoint["seqnets"]["encoder"] = encoder
        torch.save(checkpoint, tmp_path / "foreign.ckpt")
        with pytest.raises(CheckpointError, match="words do not fit"):
            load_trained(tmp_path / "foreign.ckpt")


def test_a_checkpoint_is_not_tied_to_the_backend_it_was_trained_on(reviews, tmp_path):
    train(small_run(reviews, tmp_path / "run", "model.backend=reference", "trainer.max_epochs=1"))
    trained = load_trained(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert isinstance(trained.task, LightningModule)
    assert trained.task.model.recurrent.backend is None
    assert trained.config["model"]["backend"] == "reference"


def test_last_checkpoint_is_written_once_where_steps_and_an_epochs_end_meet(reviews, tmp_path, monkeypatch):
    written = []
    save = Trainer.save_checkpoint
    monkeypatch.setattr(
        Trainer, "save_checkpoint", lambda self, path: (written.append(self.global_step), save(self, path))
    )
    train(small_run(reviews, tmp_path / "run", "callbacks.last_checkpoint.every_n_train_steps=5"))
    assert written == [5, 10, 15, 20]
