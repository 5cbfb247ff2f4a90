"""Watches every test on a GPU, and reports what it saw of one that fails: it must be mended where there is no GPU."""

import collections
import os

import pytest
import torch

from tests.gpu.device import REHEARSED, STUB

if STUB:
    from tests.gpu import rehearsal

    rehearsal.begin()  # before test modules ask what is here

PLANS, COMPILED = pytest.StashKey[dict](), pytest.StashKey[list]()
MOST_KERNELS = 12  # told of one test


def pytest_report_header():
    return "a stub stands for the GPU: nothing is computed, and no number is judged" if STUB else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    if REHEARSED == "sample":
        items[:] = rehearsal.one_of_each(items)


@pytest.fixture(autouse=True)
def _watched(request, monkeypatch):
    """The plans by which kernels are launched, and what is compiled."""
    from seqnets.kernels.report.compilations import watch_compilations
    from seqnets.kernels.triton import launch  # which imports Triton: where tests run

    plans, compiled = request.node.stash.setdefault(PLANS, {}), request.node.stash.setdefault(COMPILED, [])
    find = launch.plan_for

    def plan_for(cell, U, N, dtype, device, backward):
        plan = find(cell, U, N, dtype, device, backward)
        plans[f"{cell.name} U={U} N={N} {dtype} {'backward' if backward else 'forward'}"] = plan
        return plan

    monkeypatch.setattr(launch, "plan_for", plan_for)
    with watch_compilations(compiled):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and hasattr(report.longrepr, "addsection"):
        # at the end of the failure's text, which reports in XML keep too
        report.longrepr.addsection("on this GPU", "\n".join(_told(item)))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """End a process of xdist whose GPU failed, after it reported that: xdist replaces it,
    where every other test would fail.

    Not with ``--dist loadgroup``, where xdist may wait forever for the one that ended.
    """
    done = yield
    if not getattr(item.config.option, "loadgroup", True) and torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except Exception:  # it stays, as after an illegal address
            os._exit(1)
    return done


def _told(item):
    yield from (f"plan of {what}: {plan._replace(why='')}" for what, plan in item.stash.get(PLANS, {}).items())
    compiled = item.stash.get(COMPILED, [])
    counts = collections.Counter((c.kernel, c.cached) for c in compiled)
    for (kernel, cached), count in list(counts.items())[:MOST_KERNELS]:
        yield f"{'read from the cache' if cached else 'compiled'}: {kernel}, {count} times"
    if not compiled:
        yield "no kernel was compiled in this test"
    yield _environment()


def _environment():
    from seqnets.kernels import store

    try:
        name, known = torch.cuda.get_device_name(), store.environment(torch.device("cpu" if STUB else "cuda"))
    except Exception as error:  # after an error of CUDA nothing answers
        return f"torch {torch.__version__}; the GPU does not answer: {error}"
    return f"{name}, " + ", ".join(f"{what} {known[what]}" for what in ("driver", "cuda", "torch", "triton"))
