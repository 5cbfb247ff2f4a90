"""What happens without a compiler, with a bad one, with a bad cache, and when many start at once."""

import ctypes
import json
import logging
import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqnets
from seqnets.errors import BackendError
from seqnets.kernels.cpp import build, library, printed

SOURCE = 'extern "C" int answer() { return 42; }'


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A process that has compiled nothing yet."""
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "cache"))
    caches = build.find_compiler, build._version, library._library  # not what a test puts in their place
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def kept(tmp_path):
    return sorted(path.suffix for path in (tmp_path / "cache" / "kernels").iterdir() if path.suffix != ".lock")


def test_what_was_compiled_is_kept_and_loaded_again(tmp_path, monkeypatch):
    assert build.compiled("answer", SOURCE)[0].answer() == 42
    assert kept(tmp_path) == [".sha256", ".so"]
    monkeypatch.setattr(build, "_run", lambda *given: pytest.fail("it was compiled again"))
    assert build.compiled("answer", SOURCE)[0].answer() == 42


@pytest.mark.parametrize("change", ["source", "cpu", "version"])
def test_what_was_compiled_from_or_for_something_else_is_not_loaded(change, tmp_path, monkeypatch):
    build.compiled("answer", SOURCE)
    if change != "source":
        monkeypatch.setattr(build, f"_{change}", lambda *given: "another")
    build.compiled("answer", SOURCE + "\n" if change == "source" else SOURCE)
    assert kept(tmp_path).count(".so") == 2


@pytest.mark.parametrize("damage", [b"", b"\x7fELF and nothing more"])
def test_a_damaged_file_is_compiled_again(damage, tmp_path, caplog):
    build.compiled("answer", SOURCE)
    (path,) = (tmp_path / "cache" / "kernels").glob("*.so")
    path.unlink()  # the old one is mapped into this process
    path.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert build.compiled("answer", SOURCE)[0].answer() == 42
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
    with pytest.raises(build.CompilationError, match=message):
        build.compiled("answer", SOURCE)
    assert kept(tmp_path) == []


def test_a_compiler_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with pytest.raises(build.CompilationError, match="cannot be run .*set CXX to another compiler"):
        build.compiled("answer", SOURCE)


def test_where_nothing_can_be_kept_it_is_compiled_for_the_process(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert build.compiled("answer", SOURCE)[0].answer() == 42
    assert "compiled for this process alone" in caplog.text


def planted(tmp_path):
    """A library that answers otherwise, whose checksum is right; and its folder."""
    build.compiled("answer", SOURCE)
    folder = tmp_path / "cache" / "kernels"
    (path,) = folder.glob("*.so")
    path.unlink()  # it is mapped into this process
    build._compile(build.find_compiler(), SOURCE.replace("42", "13"), path)
    return folder, path


def test_folders_are_the_users_alone(tmp_path):
    before = os.umask(0o002)
    try:
        build.compiled("answer", SOURCE)
    finally:
        os.umask(before)
    for folder in (tmp_path / "cache", tmp_path / "cache" / "kernels"):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707])
def test_a_folder_that_others_could_write_is_closed_and_its_libraries_are_made_again(mode, tmp_path, caplog):
    folder, _ = planted(tmp_path)
    folder.chmod(mode)
    with caplog.at_level(logging.WARNING):
        assert build.compiled("answer", SOURCE)[0].answer() == 42
        assert build.compiled("answer", SOURCE)[0].answer() == 42
    assert caplog.text.count("Other users could write") == 1
    assert folder.stat().st_mode & 0o777 == mode & 0o755


@pytest.mark.parametrize("how", ["written by others", "a link", "a link as checksum"])
def test_a_file_that_others_could_have_made_is_not_loaded(how, tmp_path):
    _, path = planted(tmp_path)
    if how == "written by others":
        path.chmod(0o666)
    else:
        which = path if how == "a link" else path.with_suffix(".sha256")
        elsewhere = tmp_path / which.name
        which.rename(elsewhere)
        which.symlink_to(elsewhere)
    assert build.compiled("answer", SOURCE)[0].answer() == 42


root = pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a folder away")


@root
def test_a_folder_of_another_user_is_refused(tmp_path, caplog):
    folder, path = planted(tmp_path)
    os.chown(folder, 12345, -1)
    with caplog.at_level(logging.WARNING):
        assert build.compiled("answer", SOURCE)[0].answer() == 42
    assert "can be written by other users" in caplog.text
    assert path.exists() and folder.stat().st_uid == 12345


@root
def test_a_cache_of_root_that_the_user_cannot_write_serves(tmp_path, monkeypatch):
    build.compiled("answer", SOURCE)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(build, "_run", lambda *given: pytest.fail("it was compiled again"))
    assert build.compiled("answer", SOURCE)[0].answer() == 42


def compile_and_report(folder, results):
    os.environ["SEQNETS_CACHE"] = folder
    results.put((build.compiled("answer", SOURCE)[0].answer(), os.getpid()))


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
    from seqnets.kernels.cpp.openmp import runtime

    torch.ones(10).sum()
    found = runtime()
    assert found is not None and all(isinstance(function, ctypes._CFuncPtr) for function in found)


@pytest.mark.parametrize("value", [{}, [1], "text", {"source": "int"}, None], ids=str)
def test_a_damaged_print_of_a_built_in_cell_is_made_again(value, monkeypatch, tmp_path):
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))
    expected = printed.printed.__wrapped__(seqnets.CELLS["rnn_tanh"])
    (path,) = tmp_path.glob("kernels/printed-*.json")
    path.write_text(json.dumps({"value": value}))
    assert printed.printed.__wrapped__(seqnets.CELLS["rnn_tanh"]) == expected
    assert printed.printed.__wrapped__(seqnets.CELLS["rnn_tanh"]) == expected


def test_what_others_could_have_written_is_not_compiled(monkeypatch, tmp_path):
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))
    expected = printed.printed.__wrapped__(seqnets.CELLS["rnn_tanh"])
    (path,) = tmp_path.glob("kernels/printed-*.json")
    content = json.loads(path.read_text())
    content["value"]["source"] += "// planted"
    path.write_text(json.dumps(content))
    path.parent.chmod(0o777)
    assert printed.printed.__wrapped__(seqnets.CELLS["rnn_tanh"]) == expected


MEMORY = """
import resource, torch, seqnets
layer, x = seqnets.RNN(64, 4096, backend="cpp"), torch.randn(40, 3, 64)
seqnets.RNN(4, 4, backend="cpp")(torch.randn(2, 2, 4))
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (8 << 20), resource.RLIM_INFINITY))
try:
    layer(x)
except (MemoryError, RuntimeError) as error:
    print(type(error).__name__, error)
"""


@pytest.mark.faults
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
def test_without_memory_a_call_fails_and_the_process_lives():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True)
    assert done.returncode == 0 and "memory" in done.stdout, done.stderr


def test_a_full_disk_costs_a_compilation_per_process(monkeypatch, caplog):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    functions, _ = build.compiled("answer", SOURCE)
    assert functions.answer() == 42
    assert "No space left on device" in caplog.text and "for this process alone" in caplog.text


def test_without_room_for_temporary_files_there_is_a_reason(monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    with pytest.raises(build.CompilationError, match="cannot be kept, or loaded .*No space left"):
        build.compiled("answer", SOURCE)
