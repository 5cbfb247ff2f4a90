"""From conf/benchmark.yaml to a list of cases: what is refused before anything runs,
and what becomes a row that says why.
"""

import pytest
from hydra import compose, initialize_config_dir

from benchmarks.cases import LayerCase, TrainCase, case_of, expand
from benchmarks.plan import check, plan
from seqnets.errors import ConfigError
from seqnets.training.config import resolved
from tests.benchmarks.runs import CONF, config_of

PRESETS = sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_plan_without_a_case_that_is_refused(preset):
    with initialize_config_dir(str(CONF), version_base=None):
        config = resolved(compose("benchmark", [f"preset={preset}", "run_dir=."]))
    check(config)
    planned = list(plan(config))
    assert planned and not [p.refused for p in planned if p.case is None]
    assert len({p.case for p in planned}) == len(planned)


def test_lists_of_a_grid_stand_for_several_cases():
    found = [case_of(c) for c in expand("layer", {"T": 3, "B": [1, 2], "H": [4, 5], "mode": "infer"})]
    assert [(c.B, c.H) for c in found] == [(1, 4), (1, 5), (2, 4), (2, 5)]
    assert {(c.T, c.mode, c.cell) for c in found} == {(3, "infer", "lstm")}


def test_a_case_that_two_grids_have_is_measured_once():
    config = config_of(layer=[{"H": [4, 5], "T": 2}, {"H": 4, "T": [2, 3]}])
    assert [(p.case.H, p.case.T) for p in plan(config)] == [(4, 2), (5, 2), (4, 3)]


def test_a_case_comes_back_from_json():
    for case in (
        LayerCase("layer", H=3, ragged=True),
        TrainCase("train", experiment="imdb_bilstm", overrides=("seed=1",)),
    ):
        assert case_of(case.to_dict()) == case


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        ({"H": 0}, "H must be a positive integer, not 0"),
        ({"B": "many"}, "B must be a positive integer, not 'many'"),
        ({"mode": "inference"}, "mode must be one of infer, train, step"),
        ({"dtype": "fp8"}, "dtype must be one of fp32"),
        ({"mode": "step"}, "the suite layer is not of mode step"),
        ({"cell": 3}, "cell must be a name"),
    ],
)
def test_a_case_that_cannot_be_is_a_row_that_says_why(grid, why):
    good = {"H": 4, "T": 1}
    planned = list(plan(config_of(layer=[good | grid, good])))
    assert planned[0].case is None and why in planned[0].refused
    assert planned[1].case == LayerCase("layer", H=4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"contendres": []}, "unknown key contendres: did you mean contenders"),
        ({"contenders": ["torch.nm"]}, "there is no 'torch.nm'; did you mean torch.nn"),
        ({"contenders": "torch.nn"}, "contenders is a list"),
        ({"only": ["layers"]}, "there is no 'layers'; did you mean layer"),
        ({"precision": "fast"}, "precision must be one of ieee, tf32"),
        ({"threads": 0}, "threads must be a number of at least 1"),
        ({"seconds": "long"}, "seconds must be a number"),
        ({"limits": {"prepare": 1, "run": 1, "walk": 1}}, "unknown key limits.walk"),
        ({"limits": {"prepare": 1, "run": "long"}}, "limits.run must be a positive number of seconds"),
        ({"suites": {"layer": ["lstm"]}}, "suites.layer is a list of grids"),
        ({"threads": 1000}, "threads=1000, but there are"),
        ({"suites": {"layers": []}}, "unknown key suites.layers"),
        ({"suites": {"layer": [{"hidden": 3}]}}, "there is no 'hidden'; a case has cell, mode, T, B, I, H"),
        ({"suites": {"layer": [{"H": 3, "contenders": ["jax"]}]}}, "suites.layer.contenders: there is no"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_before_anything_runs(changes, told):
    with pytest.raises(ConfigError, match=told):
        check(config_of(layer=[{"H": 4}]) | changes)
