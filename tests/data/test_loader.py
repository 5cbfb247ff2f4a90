import pickle

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from seqnets.data.loader import Examples, eval_loader, train_loader
from seqnets.errors import ConfigError

ROWS, BATCH, STEPS = 22, 4, 6  # the last batch of an epoch is a short one


def rows():
    return Examples(torch.arange(ROWS * 2, dtype=torch.int32).view(ROWS, 2), torch.arange(ROWS))


def ids(batches):
    return [batch.targets.tolist() for batch in batches]


def flat(batches):
    return [row for batch in batches for row in batch]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches(num_workers):
    for loader in (train_loader(rows(), BATCH, 0, num_workers), eval_loader(rows(), BATCH, num_workers)):
        batches = list(loader)
        assert len(batches) == len(loader) == STEPS
        assert sorted(flat(ids(batches))) == list(range(ROWS))
        for inputs, targets, _ in batches:
            assert inputs.dtype == targets.dtype == torch.int64
            assert torch.equal(inputs[:, 0], 2 * targets)
    shuffled = flat(ids(batches))  # evaluation: one order for all, in which any part is a fair sample
    assert shuffled != list(range(ROWS))
    assert shuffled == flat(ids(eval_loader(rows(), BATCH)))


def order(seed, epoch):
    loader = train_loader(rows(), BATCH, seed)
    loader.sampler.set_epoch(epoch)
    torch.rand(seed + epoch + 1)  # the global random state plays no part
    return ids(loader)


def test_the_order_depends_on_seed_and_epoch_alone():
    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert orders == [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({str(one) for one in orders}) == len(orders)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loading_leaves_the_global_random_state_alone(num_workers):
    before = torch.get_rng_state()
    list(train_loader(rows(), BATCH, 0, num_workers))
    list(eval_loader(rows(), BATCH, num_workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_it_resumes_after_every_batch(num_workers):
    whole = order(1, 5)
    loader, resumed = (train_loader(rows(), BATCH, 1, num_workers) for _ in range(2))
    loader.sampler.set_epoch(5)
    for done, _ in enumerate(loader, 1):
        resumed.load_state_dict(pickle.loads(pickle.dumps(loader.state_dict())))
        assert resumed.state_dict() == loader.state_dict()
        assert ids(resumed) == whole[done:]
        assert len(resumed) == STEPS
        assert ids(resumed) == whole  # once only


def test_a_new_epoch_starts_at_its_beginning():
    loader = train_loader(rows(), BATCH, 0)
    list(loader)
    loader.sampler.set_epoch(1)
    assert loader.state_dict()["batches"] == 0
    loader.load_state_dict(train_loader(rows(), BATCH, 0).state_dict() | {"batches": 3})
    loader.sampler.set_epoch(1)
    assert ids(loader) == order(0, 1)


def test_a_position_in_another_order_is_refused():
    state = train_loader(rows(), BATCH, 0).state_dict()
    with pytest.raises(ConfigError, match="batch_size was 4, is 5; seed was 0, is 1"):
        train_loader(rows(), 5, 1).load_state_dict(state)


# --- under Lightning


class Recorder(LightningModule):
    """Notes which rows every step saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.trainer.current_epoch, batch_idx, batch.targets.tolist()))
        return self.weight * batch.targets.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def fit(folder, num_workers=0, callbacks=(), ckpt_path=None, validate=False, **options):
    module = Recorder()
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=bool(callbacks), callbacks=list(callbacks),
        num_sanity_val_steps=0, **{"max_epochs": 3, **options},
    )  # fmt: skip
    val = eval_loader(rows(), BATCH, num_workers) if validate else None
    trainer.fit(module, train_loader(rows(), BATCH, 7, num_workers), val, ckpt_path=ckpt_path)
    return module


def saving(folder, step=None):
    """Keeps one checkpoint: after ``step`` batches, or at the end of every epoch under its number."""
    if step is None:
        return ModelCheckpoint(folder, "{epoch}", save_top_k=-1, auto_insert_metric_name=False)
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=step, save_top_k=-1, auto_insert_metric_name=False)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("step", [1, STEPS - 1, STEPS, STEPS + 1, STEPS + 2, 2 * STEPS])
def test_resuming_in_the_middle_of_an_epoch(tmp_path, step, num_workers):
    whole = fit(tmp_path, num_workers, [saving(tmp_path, step)], validate=True)
    resumed = fit(tmp_path, num_workers, ckpt_path=tmp_path / f"{step}.ckpt", validate=True)
    assert len(whole.seen) == 3 * STEPS
    assert resumed.seen == whole.seen[step:]
    assert torch.equal(resumed.weight, whole.weight)
    assert sorted(flat(seen for epoch, _, seen in whole.seen if epoch == 1)) == list(range(ROWS))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("validate", [False, True])
def test_resuming_at_the_end_of_an_epoch(tmp_path, num_workers, validate):
    whole = fit(tmp_path, num_workers, [saving(tmp_path)], validate=validate)
    for epoch in range(2):
        resumed = fit(tmp_path, num_workers, ckpt_path=tmp_path / f"{epoch}.ckpt", validate=validate)
        assert resumed.seen == whole.seen[(epoch + 1) * STEPS :]
        assert torch.equal(resumed.weight, whole.weight)


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": 3 * STEPS - 2, "max_epochs": -1},
        {"limit_train_batches": 4, "max_epochs": 4},
        {"accumulate_grad_batches": 2},
        {"val_check_interval": 2},
    ],
    ids=lambda options: next(iter(options)),
)
def test_resuming_under_other_trainer_settings(tmp_path, options):
    whole = fit(tmp_path, 0, [saving(tmp_path, 3)], validate=True, **options)
    files = list(tmp_path.glob("*.ckpt"))
    assert files
    for file in files:
        step = int(file.stem) * options.get("accumulate_grad_batches", 1)
        resumed = fit(tmp_path, 0, ckpt_path=file, validate=True, **options)
        assert resumed.seen == whole.seen[step:]
        assert torch.equal(resumed.weight, whole.weight)


def test_resuming_twice(tmp_path):
    whole = fit(tmp_path)
    fit(tmp_path, callbacks=[saving(tmp_path, 8)], max_steps=8)
    fit(tmp_path, callbacks=[saving(tmp_path, 10)], max_steps=10, ckpt_path=tmp_path / "8.ckpt")
    assert fit(tmp_path, ckpt_path=tmp_path / "10.ckpt").seen == whole.seen[10:]


def test_overfitting_the_same_batches(tmp_path):
    seen = [rows for _, _, rows in fit(tmp_path, overfit_batches=2).seen]
    assert seen == seen[:2] * 3
