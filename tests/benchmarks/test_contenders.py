"""Every contender that is installed gives what a case asks for, within the tolerance policy,
or says why it does not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import seqnets
from benchmarks.cases import LayerCase, TrainCase
from benchmarks.contenders import CONTENDERS, Arrays, Settings
from benchmarks.problem import Oracle, make_arrays
from benchmarks.worker import Contender, answer

TINY = LayerCase("layer", cell="lstm", mode="train", T=2, B=2, I=3, H=4)
CASES = [
    LayerCase("layer", cell="lstm", mode="train", T=7, B=3, I=5, H=6),
    LayerCase("layer", cell="gru", mode="train", T=7, B=3, I=5, H=6),
    LayerCase("layer", cell="lstm", mode="train", T=7, B=3, I=5, H=6, layers=2, bidirectional=True),
    LayerCase("layer", cell="gru", mode="infer", T=7, B=3, I=5, H=6, layers=2, bidirectional=True),
    LayerCase("layer", cell="rnn_tanh", mode="infer", T=7, B=1, I=5, H=6),
    LayerCase("layer", cell="rnn_relu", mode="train", T=7, B=3, I=5, H=6),
    LayerCase("layer", cell="lstm", mode="train", T=7, B=4, I=5, H=6, bidirectional=True, ragged=True),
    LayerCase("layer", cell="gru", mode="infer", T=7, B=4, I=5, H=6, layers=2, bidirectional=True, ragged=True),
    LayerCase("layer", cell="lstm", mode="train", T=7, B=3, I=5, H=6, dtype="bf16"),
    LayerCase("layer", cell="benchmarks.cells:light", mode="train", T=7, B=3, I=5, H=6),
]
STEPS = [
    LayerCase("latency", cell=cell, mode="step", B=3, I=5, H=6) for cell in ("lstm", "gru", "rnn_tanh", "rnn_relu")
]
COMPILED = [name for name in CONTENDERS if name.startswith("torch.compile")]
OTHERS = [
    name if name.startswith("seqnets") or name == "torch.nn" else pytest.param(name, marks=pytest.mark.peers)
    for name in CONTENDERS
    if name not in COMPILED
]


@pytest.fixture
def meet(tmp_path):
    """A contender by its name, or skip what cannot take part here; what it set for its own process is set back."""
    threads, precision = torch.get_num_threads(), torch.backends.fp32_precision

    def meet(name: str) -> Contender:
        settings = Settings(contender=name, device="cpu", threads=1, precision="ieee", scratch=str(tmp_path), unroll=4)
        contender = Contender(settings)
        hello = contender.hello()
        if "absent" in hello:
            pytest.skip(f"{name}: {hello['absent']}")
        assert hello["versions"]
        return contender

    yield meet
    torch.set_num_threads(threads)
    torch.backends.fp32_precision = precision


def ready(contender: Contender, case: LayerCase, arrays: Arrays, folder: Path) -> bool:
    """Whether the contender is prepared; if not, it has said why."""
    np.savez(folder / "arrays.npz", **arrays)
    given = {"do": "prepare", "case": case.to_dict(), "arrays": str(folder / "arrays.npz")}
    told = answer(contender, given)
    if told["status"] == "not served":
        assert len(told["why"].split()) > 3
        return False
    assert told["status"] == "ready", told
    return True


def first(contender: Contender, folder: Path) -> Arrays:
    told = answer(contender, {"do": "first", "outputs": str(folder / "outputs.npz")})
    assert "seconds" in told, told
    with np.load(folder / "outputs.npz") as file:
        return dict(file)


def check(case: LayerCase, arrays: Arrays, outputs: Arrays) -> None:
    worst = Oracle(case, arrays, "cpu", "ieee").worst(outputs)
    assert not isinstance(worst, str), worst
    assert worst.ratio <= 1, worst


def after_one_step(case: LayerCase, arrays: Arrays) -> Arrays:
    """The states by name, from float64."""
    layer = seqnets.Recurrent(case.cell, case.I, case.H, backend="reference", dtype=torch.float64)
    given = {name: torch.from_numpy(array).double() for name, array in arrays.items()}
    layer.load_state_dict({name: given[name] for name in layer.state_dict()})
    with torch.no_grad():
        _, states = layer.step(given["x"], [given[name][None] for name in layer.cell.states])
    return {name: state[0].float().numpy() for name, state in zip(layer.cell.states, states, strict=True)}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", OTHERS)
def test_gives_what_is_asked_for(name, case, meet, tmp_path):
    contender, arrays = meet(name), make_arrays(case, 0)
    if ready(contender, case, arrays, tmp_path):
        check(case, arrays, first(contender, tmp_path))
        assert answer(contender, {"do": "run", "calls": 2})["seconds"] > 0


@pytest.mark.peers
@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_cell_gives_what_is_asked_for(name, meet, tmp_path):
    contender, arrays = meet(name), make_arrays(TINY, 0)
    if ready(contender, TINY, arrays, tmp_path):
        check(TINY, arrays, first(contender, tmp_path))


@pytest.mark.parametrize("case", STEPS, ids=str)
@pytest.mark.parametrize("name", OTHERS)
def test_a_step_carries_the_state(name, case, meet, tmp_path):
    contender, arrays = meet(name), make_arrays(case, 0)
    if not ready(contender, case, arrays, tmp_path):
        return
    outputs = first(contender, tmp_path)
    check(case, arrays, outputs)
    # `first` may have called it more than once, to tell of it; from new states, two calls are two steps
    assert ready(contender, case, arrays, tmp_path)
    work = contender.work
    once = work.outputs(work.call())["y"].copy()
    twice = work.outputs(work.call())["y"]
    assert np.array_equal(once, outputs["y"])
    assert not np.array_equal(twice, once)
    check(case, arrays | after_one_step(case, arrays), {"y": twice})


@pytest.mark.peers
def test_keras_trains_an_experiment(meet):
    contender, case = meet("keras"), TrainCase("train", experiment="imdb_bilstm")
    generator = np.random.default_rng(0)
    arrays = {"inputs": generator.integers(0, 20_000, (40, 3)), "targets": generator.integers(0, 2, 40)}
    work = contender.module.prepare(case, arrays | {"batch_size": np.array(32)}, contender.settings)
    outputs = work.outputs(work.call())
    assert 0 < outputs["loss"] < 1
    assert outputs["parameters"] == 20_000 * 128 + 2 * 4 * 64 * (128 + 64 + 1) + 2 * 4 * 64 * (128 + 64 + 1) + 129
    assert work.run(3) > 0  # over the last row and on from the first
    assert work.outputs(work.call())["loss"] != outputs["loss"]


@pytest.mark.peers
@pytest.mark.parametrize("name", ["keras", "flax", "onnxruntime"])
def test_what_is_not_written_is_not_served(name, meet):
    case = TrainCase("train", experiment="names_gru")
    told = answer(meet(name), {"do": "prepare", "case": case.to_dict(), "arrays": None})
    assert told["status"] == "not served"
    assert "written for it here" in told["why"]
