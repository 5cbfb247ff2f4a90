"""What happens without a compiler, with a bad one, with a bad cache, and when many start at once."""

import ctypes
import logging
import multiprocessing
import os
import stat
import sys

import pytest
import torch

import seqnets
from seqnets.errors import BackendError
from seqnets.kernels.cpp import compiler, library

SOURCE = 'extern "C" int answer() { return 42; }'


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A process that has compiled nothing yet."""
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "cache"))
    caches = compiler.find_compiler, compiler._version, library._library  # not what a test puts in their place
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def kept(tmp_path):
    return sorted(path.suffix for path in (tmp_path / "cache" / "kernels").iterdir() if path.suffix != ".lock")


def test_what_was_compiled_is_kept_and_loaded_again(tmp_path, monkeypatch):
    assert compiler.compiled("answer", SOURCE)[0].answer() == 42
    assert kept(tmp_path) == [".sha256", ".so"]
    monkeypatch.setattr(compiler, "_run", lambda *given: pytest.fail("it was compiled again"))
    assert compiler.compiled("answer", SOURCE)[0].answer() == 42


@pytest.mark.parametrize("change", ["source", "cpu", "version"])
def test_what_was_compiled_from_or_for_something_else_is_not_loaded(change, tmp_path, monkeypatch):
    compiler.compiled("answer", SOURCE)
    if change != "source":
        monkeypatch.setattr(compiler, f"_{change}", lambda *given: "another")
    compiler.compiled("answer", SOURCE + "\n" if change == "source" else SOURCE)
    assert kept(tmp_path).count(".so") == 2


@pytest.mark.parametrize("damage", [b"", b"\x7fELF and nothing more"])
def test_a_damaged_file_is_compiled_again(damage, tmp_path, caplog):
    compiler.compiled("answer", SOURCE)
    (path,) = (tmp_path / "cache" / "kernels").glob("*.so")
    path.unlink()  # the old one is mapped into this process
    path.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert compiler.compiled("answer", SOURCE)[0].answer() == 42
    assert "is damaged" in caplog.text


def test_without_a_compiler_the_reason_names_the_way_out_and_auto_serves(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    layer, x = seqnets.GRU(3, 4, backend="cpp"), torch.randn(2, 2, 3)
    with pytest.raises(
        BackendError, match=r"no C\+\+ compiler was found \(install g\+\+ or clang\+\+, or name one in CXX\)"
    ):
        layer(x)
    layer.backend = "auto"
    assert layer(x)[0].shape == (2, 2, 4)
    assert "no C++ compiler" in seqnets.explain(layer, x).reasons["cpp"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'x.cpp:1:1: error: no such thing' >&2; exit 1",
            r"failed \(x.cpp:1:1: error: no such thing\); the log has all",
        ),
        ("kill -9 $$", "failed"),
        ("exit 0", "made nothing"),
    ],
    ids=["fails", "is killed", "makes nothing"],
)
def test_a_compiler_that_fails_leaves_nothing_behind(script, message, tmp_path, monkeypatch):
    broken = tmp_path / "c++"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(compiler.CompilationError, match=message):
        compiler.compiled("answer", SOURCE)
    assert kept(tmp_path) == []


def test_a_compiler_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with pytest.raises(compiler.CompilationError, match="cannot be run .*CXX names another compiler"):
        compiler.compiled("answer", SOURCE)


def test_where_nothing_can_be_kept_it_is_compiled_for_the_process(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert compiler.compiled("answer", SOURCE)[0].answer() == 42
    assert "compiled for this process alone" in caplog.text


def test_code_that_others_may_write_is_not_loaded(tmp_path, caplog):
    folder = tmp_path / "cache" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with caplog.at_level(logging.WARNING):
        assert compiler.compiled("answer", SOURCE)[0].answer() == 42
    assert "can be written by other users" in caplog.text
    assert not list(folder.iterdir())


def compile_and_report(folder, results):
    os.environ["SEQNETS_CACHE"] = folder
    results.put((compiler.compiled("answer", SOURCE)[0].answer(), os.getpid()))


def test_processes_that_start_together_all_get_it_and_one_compiles(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=compile_and_report, args=(str(tmp_path / "cache"), results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=120)[0] for _ in workers] == [42] * 4
    for worker in workers:
        worker.join()
    assert kept(tmp_path) == [".sha256", ".so"]


@pytest.mark.skipif(sys.platform != "linux", reason="finds libraries in /proc")
def test_the_threads_are_those_of_torch():
    from seqnets.kernels.cpp.threads import runtime

    torch.ones(10).sum()
    found = runtime()
    assert found is not None and all(isinstance(function, ctypes._CFuncPtr) for function in found)
