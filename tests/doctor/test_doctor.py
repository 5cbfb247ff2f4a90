"""``python -m seqnets.doctor``, run as a user does, and the parts that need a GPU with a clock of ours."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqnets
from seqnets.doctor.__main__ import main
from seqnets.doctor.checks import Case, Check, time_layers
from seqnets.table import plain_table
from seqnets.tolerance import Error
from tests.doctor import user_cells

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def python(*arguments):
    """Run it where there is no GPU."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    environment.pop("TRITON_INTERPRET", None)
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def doctor(*arguments):
    return python("-m", "seqnets.doctor", *arguments)


def test_every_schedule_and_pass_of_a_cell():
    done = doctor("--json", "--cell", "rnn_tanh", "--dtype", "fp64")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["agrees"] and not found["gpu"]
    assert found["where"].startswith("Nothing ran on a GPU")
    environment = found["environment"]
    assert environment["interpreter"] and environment["gpu"] is None and environment["torch"] == torch.__version__
    assert environment["variables"]["SEQNETS_CACHE"] == environment["cache"] == os.environ["SEQNETS_CACHE"]
    cases = [(c["cell"], c["dtype"], c["schedule"], c["pass"]) for c in found["checks"]]
    schedules, passes = ("resident", "tiled", "cpp"), ("forward", "backward")
    assert cases == [("rnn_tanh", "float64", s, p) for s in schedules for p in passes]
    for check in found["checks"]:
        assert check["hidden"] == 20 and check["compiled"] == []
        assert check["result"] == "agrees" and check["reason"] is None
        assert 0 < check["error"] <= check["allowed"]
        assert (check["milliseconds"] is not None) == (check["schedule"] == "cpp")  # nothing else is compiled here
        assert (check["torch_milliseconds"] is not None) == (check["schedule"] == "cpp")


def test_a_table_says_what_is_wrong():
    cells = [f"tests.doctor.user_cells:{name}" for name in ("trains", "fails", "sorts")]
    done = doctor("--cell", *cells, "--dtype", "fp16", "--hidden", "5")
    assert done.returncode == 1
    assert "Nothing ran on a GPU" in done.stdout and "Not all that is served agrees" in done.stdout
    assert "[18/18]" in done.stderr
    rows = [line for line in done.stdout.splitlines() if line.split()[1:2] == ["float16"] and " cpp " not in line]
    results = [" ".join(row.split()[4:6]) for row in rows]
    reasons = re.findall(r"^\[(\d)\] (.*)$", done.stdout, re.M)
    assert results[:4] == ["forward disagrees", "backward agrees"] * 2
    assert results[4:8] == ["forward crashed", "backward crashed"] * 2
    assert results[8:] == ["forward not", "backward not"] * 2
    assert [row.split()[-1] for row in rows[4:]] == ["[2]"] * 4 + ["[3]"] * 4
    assert reasons[0] == ("1", "its kernels on the CPU do not compute in torch.float16")
    assert reasons[1] == ("2", "NotImplementedError: not for five units")
    assert len(reasons) == 3 and "sort" in reasons[2][1]  # the operation, by name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cell", "lstn"], "did you mean 'lstm'?"),
        (["--cell", "no.such.module:cell"], "cannot be imported"),
        (["--dtype", "int8"], "invalid choice"),
        (["--hidden", "0"], "positive"),
        (["--hiden", "3"], "unrecognized"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_help_states_the_exit_status(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "Exit status: 0" in capsys.readouterr().out


def test_without_triton_nothing_is_served():
    code = "import sys; sys.modules['triton'] = None\n"  # importing it raises
    code += "import seqnets.kernels.availability as a; a.triton_version = lambda: None\n"
    code += "import seqnets.doctor.__main__ as d; sys.exit(d.main(['--json', '--cell', 'gru', '--dtype', 'bf16']))"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "Triton is not installed" in found["where"]
    results = {check["schedule"]: (check["result"], check["reason"]) for check in found["checks"]}
    assert results.pop("cpp") == ("agrees", None)
    assert all(result == "not served" and "pip install triton" in reason for result, reason in results.values())


def case(cell, backward):
    return Case(cell, torch.float32, 6, "tiled", backward)


@pytest.mark.parametrize("backward", [False, True])
def test_times_are_medians_beside_those_of_torch(backward):
    def clock(competitors):
        competitors["aten"]()
        return {"triton": [1.0, 2.0, 9.0], "aten": [3.0, 4.0, 5.0]}

    assert time_layers(case(seqnets.CELLS["gru"], backward), CPU, "triton", clock) == {"triton": 2.0, "aten": 4.0}


def test_a_cell_that_torch_lacks_is_timed_alone():
    times = time_layers(case(user_cells.decays, True), CPU, "triton", lambda runs: {name: [1.0] for name in runs})
    assert times == {"triton": 1.0}


def test_results():
    served = case(user_cells.decays, True)
    worst = Error("y", 0.3, 0.2)
    assert Check(served, worst=worst).result == "disagrees"
    assert Check(served, worst=Error("y", 0.0, 0.0)).result == "agrees"
    assert Check(served, worst=Error("y", float("inf"), float("inf"))).result == "disagrees"
    assert Check(served, crash="RuntimeError: no").result == "crashed"
    assert Check(served, "too large").result == "not served"
    infinite = Check(served, worst=Error("y", float("inf"), 0.2)).as_dict()
    assert infinite["error"] is None and infinite["result"] == "disagrees"  # JSON has no infinity


def test_a_plain_table_is_aligned():
    assert plain_table(["a", "long", "why"], [["lstm", "x", "so"], ["b", "y", ""]]).splitlines() == [
        "a     long  why",
        "lstm  x     so",
        "b     y",
    ]
