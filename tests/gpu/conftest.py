"""What a failure tells beside its message, and how the tests are rehearsed without a GPU.

Whoever mends a failure may have no GPU at hand. So each says what ran: the GPU, the versions, the plans, and the kernels that were
compiled.

On the stub nothing is computed. Comparisons pass whatever they are given, so that every line runs, and no mistake in the tests
themselves is left for the first GPU.
"""

import platform
from contextlib import contextmanager

import pytest
import torch

from tests.gpu.device import DEVICE, STUB

if STUB:
    from benchmarks.prove import stub_gpu

    stub_gpu.install()


def pytest_collection_modifyitems(config, items):
    if STUB != "sample":
        return
    first = {}
    for item in items:
        first.setdefault(item.function, item)
    chosen = set(first.values())
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    with recorded() as (plans, compiled):
        try:
            return (yield)
        except AssertionError as error:
            if STUB:
                return None  # nothing was computed, so nothing can be as it should
            tell(error, plans, compiled)
            raise
        except Exception as error:
            tell(error, plans, compiled)
            raise


@contextmanager
def recorded():
    """The plans that are made, and the kernels that are compiled."""
    try:
        from seqnets.kernels import launch
        from seqnets.kernels.analysis.compilations import watch_compilations
    except ImportError:  # of Triton: all is skipped
        yield {}, []
        return
    plans, compiled, original = {}, [], launch.plan_for

    def plan_for(cell, U, N, dtype, device, backward):
        plan = original(cell, U, N, dtype, device, backward)
        plans[f"{cell.name} {'backward' if backward else 'forward'} U={U} N={N} {dtype}"] = plan
        return plan

    launch.plan_for = plan_for
    try:
        with watch_compilations(compiled):
            yield plans, compiled
    finally:
        launch.plan_for = original


def tell(error, plans, compiled):
    if not hasattr(error, "add_note"):  # before Python 3.11
        return
    from seqnets.kernels import store

    device = torch.device(DEVICE)
    known = store.surroundings(device)
    error.add_note(
        f"on {torch.cuda.get_device_name()}, driver {known['driver']}, torch {known['torch']}, Triton {known['triton']}, "
        f"CUDA {known['cuda']}, cuDNN {torch.backends.cudnn.version()}, Python {platform.python_version()}"
    )
    for what, plan in plans.items():
        error.add_note(f"plan: {what}: {plan._asdict()}")
    for compilation in compiled:
        error.add_note(f"kernel: {compilation}")


@pytest.fixture(autouse=STUB != "")
def _nothing_is_judged(monkeypatch):
    from seqnets.kernels import first_use

    def judge(*given):
        judged(*given)
        return

    judged = first_use._judge
    monkeypatch.setattr(first_use, "_judge", judge)
    monkeypatch.setattr(torch, "equal", lambda *tensors: True)
    monkeypatch.setattr(torch.testing, "assert_close", lambda *given, **more: None)
    for module in ("tests.recurrences", "tests.gpu.test_gpu"):
        monkeypatch.setattr(f"{module}.assert_within_policy", lambda *given, **more: None)
