"""Measured plans: what is chosen, kept, found again and refused. The kernels are interpreted; the clock is ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqnets
from seqnets.cells import gru, lstm
from seqnets.errors import BackendError
from seqnets.kernels import store
from seqnets.kernels.triton.module import generate
from seqnets.kernels.triton.planning import tuned
from seqnets.kernels.triton.planning.candidates import candidates
from seqnets.kernels.triton.planning.capacity import choose
from seqnets.kernels.triton.planning.select import arch_here, demand_of, plan_for, use_schedule
from seqnets.kernels.tuning import autotune
from seqnets.kernels.tuning.autotune import tune
from tests.cells.zoo import layernorm_lstm, two_speeds

CPU = torch.device("cpu")
U = 20  # wider than the smallest tile
SMALL = {"hidden": U, "dtype": torch.float32, "batch": 3, "steps": 2, "device": "cpu"}


@pytest.fixture(autouse=True)
def _nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQNETS_CACHE", str(tmp_path))
    monkeypatch.delenv("SEQNETS_TUNED", raising=False)
    tuned.tuned_plan.cache_clear()
    yield
    tuned.tuned_plan.cache_clear()


def plans(backward):
    """The rule's own and another, which runs by the other schedule."""
    return by_schedule(demand_of(lstm, U, 1, torch.float32, backward), arch_here(CPU))


def by_schedule(demand, arch):
    allowed = candidates(demand, arch)
    default = allowed[0]
    return default, next(plan for plan in allowed if plan.schedule != default.schedule)


def keep(plan, backward=False):
    tuned.keep(generate(lstm).digest, demand_of(lstm, U, 1, torch.float32, backward), CPU, plan)


def plan_now(backward, cell=lstm, dtype=torch.float32):
    return plan_for(cell, U, 1, dtype, CPU, backward)


def prefers(*fast):
    """A clock by which these plans take half the time of the others."""
    return lambda runs: {plan: [1.0 if plan in fast else 2.0] * 3 for plan in runs}


def limit(monkeypatch, allowed=by_schedule):
    """Let these be all candidates; the interpreter is slow."""
    for module in (autotune, tuned):
        monkeypatch.setattr(module, "candidates", lambda demand, arch: list(allowed(demand, arch)))


def results(backend):
    torch.manual_seed(0)
    layer = seqnets.LSTM(5, U, backend=backend)
    x = torch.randn(4, 3, 5, requires_grad=True)
    y, _ = layer(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])]


def test_the_fastest_is_kept_for_each_pass_and_computes_the_same(monkeypatch):
    limit(monkeypatch)
    (slow, fast), (rule, other) = plans(backward=False), plans(backward=True)
    clocks = iter([prefers(fast), prefers(rule)])
    forward, backward = tune(lstm, **SMALL, timer=lambda runs: next(clocks)(runs))
    assert (forward.plan, forward.default) == (fast, slow) == (plan_now(False), slow)
    assert (forward.milliseconds, forward.default_milliseconds) == (1.0, 2.0)
    assert not forward.rejected and forward.tried > 1
    assert backward.plan == backward.default == rule == plan_now(True) != other
    for actual, expected in zip(results("triton"), results("reference"), strict=True):
        torch.testing.assert_close(actual, expected)


def test_it_holds_for_what_was_measured_and_no_more(monkeypatch):
    default, fast = plans(backward=False)
    keep(fast)
    assert plan_now(False) == fast
    assert plan_now(False, cell=gru).schedule == plan_now(False, dtype=torch.float64).schedule == default.schedule
    with use_schedule(default.schedule):
        assert plan_now(False) == default
    monkeypatch.setenv("SEQNETS_TUNED", "0")
    assert plan_now(False) == default


def test_it_is_found_again_until_something_changes(monkeypatch):
    default, fast = plans(backward=False)
    keep(fast)
    known = store.environment(CPU)
    for what in ("gpu", "cuda", "driver", "torch", "triton", "kernels"):
        for value, expected in (("another", default), (known[what], fast)):
            monkeypatch.setattr(store, "environment", lambda device, now={**known, what: value}: now)
            tuned.tuned_plan.cache_clear()  # as in another process
            assert plan_now(False) == expected


def test_another_process_finds_it(tmp_path):
    _, fast = plans(backward=True)
    keep(fast, backward=True)
    code = (
        "import torch, seqnets\n"
        "from seqnets.kernels.triton.planning.select import plan_for\n"
        f"print(plan_for(seqnets.CELLS['lstm'], {U}, 1, torch.float32, torch.device('cpu'), True))"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1", "SEQNETS_CACHE": str(tmp_path)}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == str(fast), done.stderr


def test_the_disk_is_asked_once(monkeypatch):
    asked, read = [], store.read
    monkeypatch.setattr(store, "read", lambda *about: asked.append(about) or read(*about))
    assert plan_now(True) == plan_now(True) == plan_now(True)
    assert len(asked) == 1


def test_what_is_on_disk_must_be_a_plan_that_the_rule_allows():
    default, fast = plans(backward=False)
    keep(fast._replace(block_b=7))
    assert plan_now(False) == default


@pytest.mark.sampled(2)
@pytest.mark.parametrize("backward", [False, True])
def test_a_fast_plan_with_wrong_results_is_not_kept(monkeypatch, backward):
    default, right = plans(backward)
    wrong = default._replace(schedule="resident", block_u=16)  # it leaves out units 16 to 19
    limit(monkeypatch, lambda demand, arch: [choose(demand, arch), right, wrong])
    speeds = {right: 2.0, wrong: 1.0}
    found = tune(lstm, **SMALL, timer=lambda runs: {plan: [speeds.get(plan, 3.0)] for plan in runs})
    assert found[backward].plan == plan_now(backward) == right
    assert "is off by" in found[backward].rejected[wrong]
    assert found[backward].tried == 3


def test_a_plan_that_fails_is_passed_over(monkeypatch):
    default, _ = plans(backward=False)
    failing = default._replace(block_b=17)
    limit(monkeypatch, lambda demand, arch: [choose(demand, arch), failing])
    forward, _ = tune(lstm, **SMALL, timer=prefers(failing))
    assert forward.plan == default
    assert "17" in forward.rejected[failing] or "power of 2" in forward.rejected[failing]


def test_where_the_rules_own_plan_is_wrong_nothing_is_kept(monkeypatch, tmp_path):
    default, _ = plans(backward=False)
    wrong = default._replace(schedule="resident", block_u=16)
    limit(monkeypatch, lambda demand, arch: [wrong])
    monkeypatch.setattr(autotune, "choose", lambda demand, arch: wrong)
    with pytest.raises(BackendError, match="own plan is wrong here"):
        tune(lstm, **SMALL, timer=prefers())
    assert not list(tmp_path.rglob("plan-*"))


def test_the_competitors_are_whole_passes(monkeypatch):
    limit(monkeypatch)
    ran = []

    def clock(runs):
        for run in runs.values():
            run()
        ran.append(list(runs))
        return prefers()(runs)

    tune(lstm, **SMALL, timer=clock)
    assert ran == [list(plans(backward=False)), list(plans(backward=True))]


@pytest.mark.matrix
def test_every_kind_of_cell(monkeypatch):
    limit(monkeypatch, lambda demand, arch: candidates(demand, arch)[:1])
    small = {**SMALL, "hidden": 6, "timer": prefers()}
    for cell, heads in ((layernorm_lstm, 1), (two_speeds, 2)):
        assert [found.tried for found in tune(cell, **small, heads=heads)] == [1, 1]
    with pytest.raises(ValueError, match="4 do not divide 6"):
        tune(lstm, **small, heads=4)
    with pytest.raises(BackendError, match="nothing to tune.*reduces"):
        tune(layernorm_lstm, **small, heads=2)
