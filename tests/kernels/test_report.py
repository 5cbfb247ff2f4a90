"""``python -m seqnets.kernels``: what it prints, where, and with which exit status."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="kernels are compiled by Triton")

from tests.kernels.barriers import MOST

KEYS = {
    "cell", "pass", "hidden", "dtype", "arch", "schedule", "tile", "registers", "spills", "shared_memory", "fits",
    "barriers_per_step", "instructions_per_step", "tensor_core_instructions_per_step", "compile_seconds",
}  # fmt: skip

CELL = """
import seqnets

@seqnets.cell(gates=2, states=("h",))
def sorts(x, r, state):
    return (x[0] + r[1]).sort(-1).values + state.h

print("imported")
"""

pytestmark = pytest.mark.xdist_group("report")  # in one process, as they share what `rows` takes long to make


def run(*arguments, **environment):
    command = [sys.executable, "-m", "seqnets.kernels", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def rows():
    """The report of one small and one large LSTM, by its own command."""
    done = run("report", "--cell", "lstm", "--hidden", 128, 512, "--arch", "sm_90", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_json_is_one_array_with_an_object_for_each_kernel(rows):
    assert [(row["pass"], row["hidden"]) for row in rows] == [
        ("forward", 128), ("backward", 128), ("forward", 512), ("backward", 512),
    ]  # fmt: skip
    assert all(row.keys() >= KEYS for row in rows)


def test_a_weight_that_fits_is_resident_and_a_larger_one_is_tiled(rows):
    assert [row["schedule"] for row in rows] == ["resident", "resident", "tiled", "tiled"]
    assert "128 KiB" in rows[0]["why"] and "sm_90 has 227 KiB" in rows[2]["why"]


def test_barriers_per_step_of_the_lstm_with_saves_and_without(rows):
    done = run("report", "--cell", "lstm", "--arch", "sm_90", "--inference", "--json")
    (inference,) = json.loads(done.stdout)
    assert rows[0]["barriers_per_step"] <= MOST["lstm forward"]
    assert rows[1]["barriers_per_step"] <= MOST["lstm backward"]
    assert inference["barriers_per_step"] <= MOST["lstm inference"]


def test_the_table_says_that_its_floor_is_a_model():
    done = run("report", "--cell", "gru", "--hidden", 64, "--arch", "gfx942", "--dtype", "fp32")
    assert done.returncode == 0
    assert "floor ns (model)" in done.stdout and "not a measurement" in done.stdout


def test_markdown_is_a_table():
    done = run("report", "--cell", "rnn_tanh", "--hidden", 16, "--arch", "sm_80", "--markdown")
    lines = done.stdout.splitlines()
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 4  # header, rule, forward, backward


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "--cell", "lstn"], "unknown cell 'lstn': did you mean 'lstm'? Choose from"),
        (["report", "--arch", "sm_70"], "invalid choice: 'sm_70'"),
        (["report", "--hidden", "0"], "'0' is not a positive whole number"),
        (["report", "--hidden", "10", "--heads", "4"], "--heads 4 does not divide --hidden 10"),
        (["source"], "the following arguments are required: cell"),
        ([], "source | compile | report | tune"),
    ],
)
def test_bad_arguments_end_with_a_sentence_and_status_2(arguments, message):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and "Traceback" not in done.stderr


def test_an_interpreter_compiles_nothing_and_says_so():
    done = run("report", TRITON_INTERPRET="1")
    assert done.returncode == 2 and "TRITON_INTERPRET=1 is set" in done.stderr


def test_the_source_of_a_cell_is_printed_and_is_python():
    done = run("source", "gru")
    assert done.returncode == 0
    compile(done.stdout, "gru", "exec")
    assert "reset = sigmoid(x_r + r_r)" in done.stdout


def test_the_source_for_the_cpu_is_printed_too():
    done = run("source", "gru", "--target", "cpp")
    assert done.returncode == 0
    assert "const V reset = sigmoid(x[0] + r[0]);" in done.stdout


@pytest.mark.parametrize("arguments", [("source", "own:sorts"), ("report", "--cell", "own:sorts")], ids=lambda a: a[0])
def test_a_cell_that_cannot_be_generated_is_refused_with_its_line(arguments, tmp_path):
    (tmp_path / "own.py").write_text(CELL)
    done = run(*arguments, PYTHONPATH=f"{tmp_path}{os.pathsep}{os.getcwd()}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "sort" in done.stderr and "own.py, line 6" in done.stderr and "Traceback" not in done.stderr
