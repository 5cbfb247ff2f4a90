import logging
import multiprocessing

import numpy as np
import pytest

from seqnets import folders
from seqnets.data.cache import cached
from seqnets.folders import cache_directory


def build():
    return {"a": np.arange(1000, dtype=np.int32), "b": np.zeros((3, 4))}


def never():
    raise AssertionError("built although it was cached")


def same(got):
    return got.keys() == build().keys() and all(np.array_equal(got[name], build()[name]) for name in got)


def test_built_once_per_key(tmp_path):
    assert same(cached("x", {"k": 1}, build, tmp_path))
    assert same(cached("x", {"k": 1}, never, tmp_path))
    with pytest.raises(AssertionError):
        cached("x", {"k": 2}, never, tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:10],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-1],
        lambda raw: raw[:500] + bytes([raw[500] ^ 1]) + raw[501:],
    ],
    ids=["empty", "in-digest", "half", "last-byte", "bit"],
)
def test_a_damaged_file_is_reported_and_rebuilt(tmp_path, caplog, damage):
    cached("x", {}, build, tmp_path)
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    file.write_bytes(damage(good))
    assert same(cached("x", {}, build, tmp_path))
    assert str(file) in caplog.text
    assert "truncated or damaged" in caplog.text
    assert file.read_bytes() == good


def test_nothing_is_left_of_a_failed_write(tmp_path, caplog, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("seqnets.data.cache.os.fsync", full)
    with caplog.at_level(logging.WARNING):
        assert same(cached("x", {}, build, tmp_path))
    assert "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert same(cached("x", {}, build, tmp_path / "file" / "cache"))
    assert "cannot be cached" in caplog.text


def _start(barrier, folder, results):
    barrier.wait()
    results.put(same(cached("x", {}, build, folder)))


def test_processes_that_start_together(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_start, args=(barrier, tmp_path, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert all(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
    assert same(cached("x", {}, never, tmp_path))
    assert len(list(tmp_path.iterdir())) == 1


def test_where_it_is_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("SEQNETS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "seqnets"


def test_without_a_home_it_is_where_temporary_files_are_and_nobody_else_can_write(monkeypatch, tmp_path):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("SEQNETS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", no_home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folders._temporary.cache_clear()
    path = cache_directory()
    assert path.parent == tmp_path and path.stat().st_mode & 0o777 == 0o700
    folders._temporary.cache_clear()
    assert cache_directory() == path
    folders._temporary.cache_clear()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache_directory() != path and not cache_directory().is_symlink()
    folders._temporary.cache_clear()
    path.unlink()
    path.mkdir(mode=0o700)
    path.chmod(0o777)
    assert cache_directory() != path and cache_directory().parent == tmp_path
    folders._temporary.cache_clear()
