"""Runs the tests of this folder in a child process that has TRITON_INTERPRET=1, and reports each as its own.

Triton decides at import whether kernels are interpreted or compiled, and other tests compile. Every worker of the run
keeps one child. To debug a test, set the variable yourself: ``TRITON_INTERPRET=1 pytest -n0 --pdb tests/interpreted``.
"""

import multiprocessing
import os
from pathlib import Path

import pytest

from seqnets.kernels.availability import why_unavailable
from tests.interpreted.child import serve

FOLDER = Path(__file__).parent
CHILD = pytest.StashKey()


def pytest_runtest_protocol(item, nextitem):
    if os.environ.get("TRITON_INTERPRET") == "1" or not item.path.is_relative_to(FOLDER):
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    call = pytest.CallInfo.from_call(lambda: _reports(item), "call", reraise=KeyboardInterrupt)
    for report in call.result if call.excinfo is None else [hook.pytest_runtest_makereport(item=item, call=call)]:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_sessionfinish(session):
    if CHILD in session.config.stash:
        process, connection = session.config.stash[CHILD]
        connection.close()
        process.join()


def _reports(item):
    """What the child says of the test: its setup, call and teardown."""
    if CHILD not in item.config.stash:
        item.config.stash[CHILD] = _child(sorted({str(i.path) for i in item.session.items if FOLDER in i.path.parents}))
    process, connection = item.config.stash[CHILD]
    connection.send(item.nodeid)
    try:
        answer = connection.recv()
    except EOFError:
        process.join()
        del item.config.stash[CHILD]
        answer = f"the interpreting process ended with exit code {process.exitcode}"
    if isinstance(answer, str):
        pytest.fail(answer, pytrace=False)
    from_data = item.config.hook.pytest_report_from_serializable
    return [from_data(config=item.config, data=data) for data in answer]


def _child(files):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, files))
    process.start()
    theirs.close()
    return process, ours


@pytest.fixture(autouse=True)
def _interpreter():
    if unavailable := why_unavailable("cpu"):
        pytest.skip(unavailable)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def unchecked(monkeypatch):
    """No check of first use: it runs what these tests run."""
    monkeypatch.setenv("SEQNETS_CHECK", "0")


@pytest.fixture
def checked(monkeypatch):
    """The check of first use, as in a new process; of the Triton kernels alone, as `explain` asks all backends."""
    monkeypatch.delenv("SEQNETS_CHECK", raising=False)
    monkeypatch.setattr("seqnets.kernels.cpp.first_use.why_disagrees", lambda *which: None)
    monkeypatch.setattr("seqnets.kernels.triton.first_use.find_verdict.known", {})


@pytest.fixture
def eager(monkeypatch):
    """`auto` takes kernels in the interpreter, as it would on a GPU: too, and instead of those in C++."""
    monkeypatch.setattr("seqnets.backends.triton.only_if_asked", lambda problem: None)
    monkeypatch.setattr("seqnets.backends.cpp.only_if_asked", lambda problem: "this stands for a GPU")
