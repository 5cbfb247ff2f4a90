import pytest
from hydra.errors import ConfigCompositionException, MissingConfigException
from lightning.pytorch import Callback, Trainer
from omegaconf import OmegaConf

from seqnets.errors import BackendError, CellError, ConfigError, DataError
from seqnets.training import check_config, train
from seqnets.training.config import KEYS, MODEL_KEYS, build
from tests.training.helpers import CONF, compose, small_run


class Refuses:
    """Raises one of seqnets' errors in place of another, as callbacks do whose package is missing."""

    def __init__(self):
        try:
            raise ImportError("no module")
        except ImportError as error:
            raise ConfigError("pip install it") from error


def test_what_a_constructor_says_is_what_the_user_reads():
    with pytest.raises(ConfigError, match="^pip install it$"):
        build({"_target_": f"{__name__}.Refuses"}, "callbacks.some")


BILSTM = ["+experiment=imdb_bilstm", "run_dir=nowhere"]


def test_every_key_of_the_primary_config_is_known_and_no_other():
    cfg = compose(*BILSTM)
    assert set(cfg) == KEYS
    assert set(cfg.model) == MODEL_KEYS - {"input_size"}  # which data of vectors bring


def test_checked_config_is_plain_and_resolved():
    config = check_config(compose(*BILSTM, "model/cell=gru", "model.backend=reference", "seed=3"))
    recurrent = config["model"]["net"]["recurrent"]
    assert type(recurrent) is dict
    assert recurrent["cell"] == {"_target_": "seqnets.cells.get_cell", "name": "gru"}
    assert (recurrent["backend"], recurrent["init"], config["data"]["seed"]) == ("reference", "keras", 3)
    assert recurrent["input_size"] == 128


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+sed=3", "unknown key sed: did you mean seed"),
        ("+model.bakend=reference", "unknown key model.bakend: did you mean model.backend"),
        ("+model.net.poling=mean", "unknown key model.net.poling: did you mean model.net.pooling"),
        ("+model.net.recurrent.hiden_size=8", "did you mean model.net.recurrent.hidden_size"),
        ("+model.net.embedding.dim=8", "unknown key model.net.embedding.dim"),
        ("+data.vocabsize=8", "unknown key data.vocabsize: did you mean data.vocab_size"),
        ("+optimizer.lrr=1", "unknown key optimizer.lrr: did you mean optimizer.lr"),
        ("+task.classes=2", "unknown key task.classes: did you mean task.num_classes"),
        ("+trainer.max_epoch=3", "unknown key trainer.max_epoch: did you mean trainer.max_epochs"),
        ("+callbacks.last_checkpoint.every=3", "unknown key callbacks.last_checkpoint.every"),
        ("+callbacks.mine._target_=seqnets.training.nothing.Here", "callbacks.mine._target_: .* cannot be imported"),
        ("+callbacks.mine._target_=seqnets.__version__", "nothing to call"),
        ("+callbacks.mine._target_=builtins.dict", "builtins.dict does not say what arguments"),
        ("+callbacks.mine.bar=1", "callbacks.mine names no _target_"),
        ("logger.csv=3", "logger.csv names no _target_"),
        ("~optimizer._target_", "optimizer names no _target_"),
        ("seed=true", "seed is True"),
        ("data.seed=${sed}", "sed"),
        ("data.path=???", "data.path"),
    ],
)
def test_a_key_nobody_reads_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        check_config(compose(*BILSTM, override))


def test_a_key_inside_an_experiment_file_is_refused(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = (CONF / "experiment" / "imdb_bilstm.yaml").read_text()
    (tmp_path / "experiment" / "mine.yaml").write_text(text.replace("hidden_size", "hiden_size"))
    cfg = compose("+experiment=mine", "run_dir=nowhere", f"hydra.searchpath=[file://{tmp_path}]")
    assert cfg.model.net.recurrent.hiden_size == 64  # Hydra merged it
    with pytest.raises(ConfigError, match=r"hiden_size: did you mean model\.net\.recurrent\.hidden_size\?"):
        check_config(cfg)


def test_no_experiment_is_answered_with_those_there_are():
    with pytest.raises(ConfigError, match="imdb_bilstm"):
        check_config(compose())


@pytest.mark.parametrize("override", ["+experiment=imdb", "model/cell=lstn", "callbacks=none_such"])
def test_unknown_choices_of_a_group_list_the_options(override):
    with pytest.raises(MissingConfigException, match="Available options"):
        compose(*BILSTM[(override[0] == "+") :], override)


def test_any_argument_of_lightnings_trainer_needs_no_plus():
    cfg = compose(
        *BILSTM, "trainer.accumulate_grad_batches=2", "trainer.precision=bf16-mixed", "trainer.profiler=simple"
    )
    check_config(cfg)
    assert Trainer(**OmegaConf.to_container(cfg.trainer)).accumulate_grad_batches == 2
    with pytest.raises(ConfigCompositionException, match="max_epoch"):
        compose(*BILSTM, "trainer.max_epoch=3")


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["callbacks=early_stopping"], ConfigError, r"watches val/loss.*data\.validation_fraction=0\.1"),
        (
            ["callbacks=early_stopping", "data.validation_fraction=0.2", "trainer.limit_val_batches=0"],
            ConfigError,
            "val/loss",
        ),
        (["callbacks.best_checkpoint.mode=up"], ConfigError, "min or max"),
        (["callbacks.last_checkpoint.every_n_train_steps=0"], ConfigError, "at least 1"),
        (["model.cell.name=lstn"], CellError, "did you mean 'lstm'"),
        (["model.backend=cudnn"], Exception, "unknown backend 'cudnn'"),
        (["model.net.pooling=sum"], ConfigError, "last, mean, max"),
        (["optimizer.lr=-1"], ConfigError, "optimizer cannot be built: .*learning rate"),
        (["trainer.precision=12"], ConfigError, "trainer: "),
        (["trainer.gradient_clip_algorithm=hard"], ConfigError, "trainer: "),
        (["trainer.devices=2"], ConfigError, "one run per device"),
        (["trainer.gradient_clip_val=1", "trainer.precision=bf16-mixed"], ConfigError, "optimizer.fused=false"),
        (["data.path=/none/such"], DataError, "/none/such"),
        (["seed=-1"], ConfigError, "seed"),
        (["data.max_tokens=8.5"], ConfigError, "max_tokens is 8.5, but must be an integer"),
        (
            ["+callbacks.mine._target_=fractions.Fraction"],
            ConfigError,
            "callbacks.mine must be a Callback.* a Fraction",
        ),
        (["~logger", "+logger.mine._target_=fractions.Fraction"], ConfigError, "logger.mine must be a Logger"),
        (["+model.net.front.foo=1"], ConfigError, "model.net cannot take the data: .*'dict' object is not callable"),
        (["model.net.recurrent.input_size=7"], ConfigError, "model.net cannot take the data"),
        (["model.backend=aten", "model.cell.name=tests.cells.zoo:two_speeds"], BackendError, "'aten' cannot serve"),
        (["model.net.num_classes=3"], ConfigError, "2 labels negative, positive; set model.net.num_classes=2"),
        (["model.net.num_classes=3", "task.num_classes=2"], ConfigError, "set model.net.num_classes=2"),
    ],
)
def test_what_cannot_run_is_refused_before_the_run_folder_is_made(overrides, error, message, reviews, tmp_path):
    with pytest.raises(error, match=message):
        train(small_run(reviews, tmp_path / "run", *overrides))
    assert not (tmp_path / "run").exists()


def test_a_backend_of_the_environment_that_is_none_is_refused_as_well(reviews, tmp_path, monkeypatch):
    monkeypatch.setenv("SEQNETS_BACKEND", "typo")
    with pytest.raises(BackendError, match="unknown backend 'typo'"):
        train(small_run(reviews, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_null_leaves_a_callback_or_logger_out(reviews, tmp_path):
    without = ["callbacks.best_checkpoint=null", "callbacks.epoch_report=null", "logger.tensorboard=null"]
    _, objects = train(small_run(reviews, tmp_path / "run", *without, "trainer.max_epochs=1"))
    assert not {"best_checkpoint", "epoch_report"} & set(objects["callbacks"])
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert (tmp_path / "run" / "metrics.csv").exists()
    for group in ("callbacks", "logger"):
        assert check_config(compose(*BILSTM, f"~{group}"))[group] == {}


def test_the_path_of_the_data_is_kept_whole(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert check_config(compose(*BILSTM, "data.path=here/imdb"))["data"]["path"] == str(tmp_path / "here/imdb")
    assert check_config(compose(*BILSTM, "data.path='~/imdb'"))["data"]["path"] == "/home/me/imdb"


@pytest.mark.parametrize("callback", ["best_checkpoint", "early_stopping"])
def test_a_misspelt_monitor_is_said_before_the_run(callback, reviews, tmp_path):
    options = ["callbacks=early_stopping", "data.validation_fraction=0.2", f"callbacks.{callback}.monitor=val/acuracy"]
    with pytest.raises(
        ConfigError, match=f"callbacks.{callback} watches val/acuracy, which nothing logs.*did you mean val/accuracy"
    ):
        train(small_run(reviews, tmp_path / "run", *options))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("callback", ["best_checkpoint", "early_stopping"])
def test_a_metric_of_the_test_is_no_monitor(callback, reviews, tmp_path):
    options = ["callbacks=early_stopping", "data.validation_fraction=0.2", f"callbacks.{callback}.monitor=test/loss"]
    message = f"callbacks.{callback} watches test/loss, which is known only after training"
    with pytest.raises(ConfigError, match=message):
        train(small_run(reviews, tmp_path / "run", *options))
    assert not (tmp_path / "run").exists()


class Logs(Callback):
    logged = ("val/own",)

    def on_validation_epoch_end(self, trainer, module):
        module.log("val/own", 1.0 + trainer.current_epoch)


def test_what_a_callback_logs_may_be_watched(reviews, tmp_path):
    options = ["data.validation_fraction=0.2", "callbacks.best_checkpoint.monitor=val/own"]
    _, objects = train(small_run(reviews, tmp_path / "run", *options, f"+callbacks.own._target_={__name__}.Logs"))
    assert objects["callbacks"]["best_checkpoint"].score == 2.0


@pytest.mark.parametrize("wrong", [{"in_features": "???"}, {"_partial_": "yes"}, {"_args_": 3}, {"in_features": -1}])
def test_what_cannot_be_built_is_one_message(wrong):
    with pytest.raises(ConfigError, match="^net cannot be built: "):
        build({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2} | wrong, "net")
