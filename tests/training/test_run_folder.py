from concurrent.futures import ThreadPoolExecutor

import pytest
from omegaconf import OmegaConf

from seqnets.errors import RunFolderError
from seqnets.training import run_folder, train
from seqnets.training.preflight import Preflight
from seqnets.training.run_folder import OURS, claim, refuse_used, remove_empty
from tests.training.helpers import compose, small_run


def snapshot(folder):
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else None) for p in folder.rglob("*")}


@pytest.mark.parametrize("name", OURS)
def test_a_folder_with_a_run_in_it_is_refused_untouched(name, reviews, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).write_text("of a run")
    before = snapshot(folder)
    with pytest.raises(RunFolderError, match=rf"already holds .*{name}.*hydra\.run\.dir"):
        train(small_run(reviews, folder))
    assert snapshot(folder) == before


def test_the_way_out_names_the_checkpoint_to_go_on_from(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(RunFolderError, match=r"a run that did not finish.*ckpt_path=.*last\.ckpt"):
        refuse_used(tmp_path)
    (tmp_path / "result.json").touch()
    with pytest.raises(RunFolderError, match="a finished run"):
        refuse_used(tmp_path)


def test_other_files_do_not_matter_and_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    claim(tmp_path, {"a": 1})
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert OmegaConf.load(tmp_path / "config.yaml") == {"a": 1}


def test_of_two_that_start_at_once_one_gets_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "refuse_used", lambda folder: None)  # both have looked, and it was free

    def attempt(number):
        try:
            claim(tmp_path / "run", {"number": number})
        except RunFolderError as error:
            return str(error)
        return number

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(8)))
    owners = [o for o in outcomes if isinstance(o, int)]
    assert len(owners) == 1
    assert OmegaConf.load(tmp_path / "run" / "config.yaml") == {"number": owners[0]}
    assert all("another process" in o for o in outcomes if isinstance(o, str))


def test_a_file_in_place_of_the_folder_or_of_one_above(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="is a file"):
        claim(tmp_path / "file", {})
    with pytest.raises(RunFolderError, match="cannot be written"):  # as one without the right to write
        claim(tmp_path / "file" / "run", {})


def test_only_empty_folders_below_the_working_directory_are_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a/b/c", "d/e"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "d" / "kept").touch()
    for folder in ("a/b/c", "d/e", "none"):
        remove_empty(tmp_path / folder)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["d", "kept"]


def test_hydra_is_stopped_before_it_makes_a_folder(tmp_path):
    def config(*overrides):
        hydra = [f"hydra.run.dir={tmp_path / 'run'}", f"hydra.sweep.dir={tmp_path}"]
        return compose("+experiment=imdb_bilstm", *hydra, *overrides, whole=True)

    full = config()
    Preflight().on_run_start(full)
    sweep = compose("+experiment=imdb_bilstm", f"hydra.sweep.dir={tmp_path}", whole=True)
    Preflight().on_multirun_start(sweep)
    with pytest.raises(
        SystemExit,
        match=r"a sweep, whose folder is given by hydra\.sweep\.dir=<folder>; for one run of it add hydra\.mode=RUN",
    ):
        Preflight().on_multirun_start(full)
    with pytest.raises(SystemExit, match="ConfigError: unknown key sed"):
        Preflight().on_run_start(config("+sed=1"))
    assert not (tmp_path / "run").exists()
    (tmp_path / "config.yaml").touch()
    with pytest.raises(SystemExit, match="RunFolderError"):
        Preflight().on_multirun_start(sweep)
