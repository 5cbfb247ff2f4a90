"""``python -m benchmarks prove``, rehearsed without a GPU: the real compiler and launcher on a stub,
in an environment of torch and Triton alone.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import torch

from benchmarks.prove import gpu, suite
from benchmarks.prove.command import _status
from benchmarks.prove.items import SHAPES, Phase, phases
from benchmarks.prove.proof import Proof
from benchmarks.prove.record import SCHEMA, Record, status, verdicts_of
from benchmarks.prove.tables import markdown, summary, tables
from benchmarks.prove.workers import Outcome, Task
from seqnets.errors import BackendError, DataError
from seqnets.kernels.triton.planning.arch import ARCHS

ROOT = Path(__file__).parents[2]
NOT_NEEDED = (
    "hydra", "omegaconf", "lightning", "numpy", "pandas", "matplotlib", "rich", "jsonschema", "datasets",
    "torchmetrics",
)  # fmt: skip

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the stub is compiled by cc, and there is none")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Where nothing can be imported that a machine with a GPU may lack, and Triton's cache is empty."""
    folder = tmp_path_factory.mktemp("absent")
    for name in NOT_NEEDED:
        (folder / f"{name}.py").write_text("raise ModuleNotFoundError('it must not be needed')", encoding="utf-8")
    own = {name: str(tmp_path_factory.mktemp(name.lower())) for name in ("TRITON_CACHE_DIR", "SEQNETS_CACHE")}
    return {**os.environ, **own, "PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}


def command(*arguments):
    return [sys.executable, "-m", "benchmarks", "prove", *map(str, arguments)]


def prove(environment, *arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, env=environment, capture_output=True, text=True)


def proof(folder):
    """The results, which are of the form that is promised."""
    found = json.loads((folder / "proof.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(found)
    return found


def ended(group, seconds=10.0):
    """Whether no process of the group is left, soon."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_rehearsal(environment, tmp_path):
    """One test, as it takes half a minute: xdist would run a fixture of several in each of its processes."""
    done = prove(environment, "--dry", "--jobs", 2, "--minutes", 20, "--output", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = proof(tmp_path)
    items = {item["name"]: item["found"] for item in found["items"]}

    # it runs every item to its end
    assert set(items) == {task.name for phase in phases(True) for task in phase.tasks}
    assert {item["status"] for item in found["items"]} == {"done"}
    assert found["rehearsed"] and found["not_reached"] == []

    # kernels are compiled, and none of those that are timed is compiled then
    checks = [told for name, told in items.items() if name.startswith("check")]
    assert len(checks) == 4 and all(told["compiled"] >= 3 for told in checks)
    timed = [item["found"] for item in found["items"] if item["phase"] != "checks"]
    assert timed and all(told["kernels"] > 0 and told["compiled"] == 0 for told in timed)
    (times,) = (told["times"] for name, told in items.items() if name.startswith("time lstm"))
    for mode in ("infer", "train"):
        assert set(times[mode]) == {"seqnets", "torch.nn"}
        assert all(told["graph_seconds"] is not None for told in times[mode].values())

    # nothing is judged, and no time is told
    assert done.stdout.startswith("REHEARSAL on a stub: nothing was computed, and no time is that of a GPU")
    judged = [verdict for told in items.values() for verdict in verdicts_of(told)]
    assert len(judged) > len(checks) and all(verdict["agrees"] is None for verdict in judged)
    told = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "| lstm H=16 | bf16 | infer | on stub | on stub |" in told and "x |" not in told

    # a second call goes on with what is missing, and with --retry with what failed
    missing, failed = found["items"].pop(), found["items"][0]
    failed["status"] = "failed"
    (tmp_path / "proof.json").write_text(json.dumps(found), encoding="utf-8")
    again = prove(environment, "--dry", "--output", tmp_path)
    assert again.returncode == 1, again.stderr
    assert [item["name"] for item in proof(tmp_path)["items"]] == [
        *(i["name"] for i in found["items"]),
        missing["name"],
    ]
    again = prove(environment, "--dry", "--output", tmp_path, "--retry")
    assert again.returncode == 0, again.stderr
    found = proof(tmp_path)
    assert {item["name"]: item["status"] for item in found["items"]} == dict.fromkeys(items, "done")
    assert len(found["runs"]) == 3


@pytest.mark.faults
def test_ctrl_c_keeps_what_was_reached_and_leaves_no_process(environment, tmp_path):
    running = subprocess.Popen(
        command("--dry", "--jobs", 1, "--output", tmp_path), cwd=ROOT, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    for line in running.stdout:
        if ": done" in line:
            break
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130 and "with the same --output resumes" in errors
    found = proof(tmp_path)
    assert found["items"] and found["not_reached"]
    assert ended(running.pid)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "so nothing can be proven; --dry rehearses without one"),
        (
            ("--dry", "--minutes", "0.1"),
            "--minutes is 0.1, but must be a finite number of at least 0.5: the first kernels take as long to compile",
        ),
        (
            ("--dry", "--minutes", "nan"),
            "--minutes is nan, but must be a finite number of at least 0.5: the first kernels take as long to compile",
        ),
        (
            ("--dry", "--minutes", "inf"),
            "--minutes is inf, but must be a finite number of at least 0.5: the first kernels take as long to compile",
        ),
        (
            ("--dry", "--commit", "abcdef0", "--output", "unused"),
            "--commit is for a copy without its .git; this is a clone at",
        ),
        (("--dry", "--commit", "main"), "'main' is not a commit: 7 to 40 hexadecimal digits"),
        (("--dry", "--jobs", "0"), "'0' is not a positive whole number"),
        (("--dry", "--output", "README.md"), "README.md is a file, and --output must be a folder"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_in_a_sentence(arguments, message, environment):
    done = prove(environment, *arguments)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"why_unavailable": "Triton is not installed"}, "the kernels cannot run here: Triton is not installed"),
        (
            {"arch_of": "its kernels need compute capability 8.0"},
            "the kernels cannot run here: its kernels need compute capability 8.0",
        ),
        (
            {"memory": 1},
            "1.0 of 80 GiB of the GPU's memory are free, and 16 processes take 11.6: take fewer (--jobs), or end what",
        ),
        ({}, None),
    ],
    ids=str,
)  # fmt: skip
def test_a_gpu_that_cannot_prove_anything_is_refused(changed, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (changed.get("memory", 79) << 30, 80 << 30))
    for name, right in (("why_unavailable", None), ("arch_of", ARCHS["sm_90"])):
        answer = changed.get(name, right)
        monkeypatch.setattr(gpu, name, lambda device, answer=answer: answer)
    if message is None:
        gpu.refuse(16)
    else:
        with pytest.raises(BackendError, match=re.escape(message)):
            gpu.refuse(16)


# ---- what is kept and told

ENVIRONMENT = {
    "gpu": "NVIDIA H100", "capability": "9.0", "multiprocessors": 132, "memory_gib": 80.0, "free_gib": 79.0,
    "driver": "13000", "torch": "2.11.0", "triton": "3.6.0", "cuda": "13.0", "cudnn": 91000, "python": "3.12.1",
    "platform": "Linux", "cores": 16, "seqnets": "0.1.0", "commit": None, "source": "0" * 64,
}  # fmt: skip
JUDGED = {"worst": "y", "error": 1e-3, "allowed": 2e-3, "error_over_allowed": 0.5, "agrees": True}
WRONG = JUDGED | {"worst": "gradient of x", "error": None, "error_over_allowed": None, "agrees": False}


def outcome(name="check lstm bf16 resident H=64 infer", found=None, state="done", why=None):
    return Outcome(Task(name, print, (), 1.0), state, 1.5, {} if found is None else found, why, None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (outcome(found=JUDGED), "agrees"),
        (outcome(found=WRONG), "disagrees"),
        (outcome(found={"forward": JUDGED, "backward": WRONG}), "disagrees"),
        (outcome(found={"not_served": "it takes 256 KiB", **WRONG}), "disagrees"),
        (outcome(found=JUDGED | {"agrees": None}), "done"),
        (outcome(found={"kernels": 3}), "done"),
        (outcome(found={"not_served": "its weight takes 256 KiB"}), "not served"),
        (outcome(state="failed", why="OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"), "no memory"),
        (outcome(state="failed", why="RuntimeError: CUDA error: an illegal memory access"), "failed"),
        (outcome(state="hung"), "hung"),
        (outcome(state="crashed"), "crashed"),
    ],
)
def test_the_status_of_an_item(given, expected):
    assert status(given) == expected


def record(folder, **changed):
    kept = Record(folder, ENVIRONMENT | changed, rehearsed=False)
    if not kept.results["runs"]:
        kept.results["runs"].append(
            {"command": [], "at": "2026-12-01T00:00:00Z", "clocks": None, "minutes": 6, "seconds": 0}
        )
    return kept


def test_every_item_is_on_disk_as_soon_as_it_is_known(tmp_path):
    kept = record(tmp_path)
    for number in range(3):
        kept.add("checks", outcome(f"check {number}", JUDGED))
        kept.write()
        assert [item["name"] for item in proof(tmp_path)["items"]] == [f"check {k}" for k in range(number + 1)]


def test_a_folder_that_cannot_be_written_any_more_is_told_and_the_last_file_stays(tmp_path):
    kept = record(tmp_path)
    kept.add("checks", outcome("check 0", JUDGED))
    kept.write()
    kept.add("checks", outcome("check 1", JUDGED))
    (tmp_path / "proof.json.tmp").mkdir()  # stands for a full disk, which a test cannot have
    with pytest.raises(DataError, match="proof.json cannot be written: Is a directory; name another folder"):
        kept.write()
    assert [item["name"] for item in proof(tmp_path)["items"]] == ["check 0"]


@pytest.mark.parametrize(
    "changed", [{"gpu": "NVIDIA H200"}, {"source": "1" * 64}, {"triton": "3.7.1"}, {"commit": "1234567"}], ids=str
)
def test_a_folder_is_of_one_gpu_one_source_and_one_version(changed, tmp_path):
    record(tmp_path, commit="abcdef0").write()
    before = (tmp_path / "proof.json").read_bytes()
    with pytest.raises(DataError, match=f"holds results that differ in {next(iter(changed))} .*; name another folder"):
        record(tmp_path, **{"commit": "abcdef0", **changed})
    assert (tmp_path / "proof.json").read_bytes() == before


def test_a_commit_may_be_named_later(tmp_path):
    for named, kept in ((None, None), ("abcdef0", "abcdef0"), (None, "abcdef0")):
        record(tmp_path, commit=named).write()
        assert proof(tmp_path)["commit"] == kept


@pytest.mark.parametrize("name", ["TRITON_CACHE_DIR", "HOME"])
def test_a_cache_folder_that_cannot_be_used_is_told(name, environment, tmp_path):
    (tmp_path / "file").touch()
    others = {key: value for key, value in environment.items() if key != "TRITON_CACHE_DIR"}
    done = prove(others | {name: str(tmp_path / "file")}, "--dry", "--output", tmp_path / "out")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "Triton's cache folder" in done.stderr and "name another in TRITON_CACHE_DIR" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_proof_is_left_alone(tmp_path):
    for content, message in (("{", "is not JSON"), ("[]", "is not a proof"), ('{"items": []}', "is not a proof")):
        (tmp_path / "proof.json").write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            record(tmp_path)
        assert (tmp_path / "proof.json").read_text(encoding="utf-8") == content


def test_tables_show_what_is_wrong(tmp_path):
    kept = record(tmp_path)
    kept.add("checks", outcome(found=JUDGED))
    kept.add("checks", outcome("check lstm bf16 tiled H=64 infer", WRONG))
    kept.add(
        "checks", outcome("check gru fp16 tiled H=100 train", state="crashed", why="its process was ended by SIGSEGV")
    )
    mode = {
        "seqnets": {
            "gpu_seconds": [2e-3, 4e-3, 2e-3],
            "host_seconds": 1e-3,
            "graph_seconds": None,
            "why_no_graph": "no",
        }
    }
    both = mode | {"torch.nn": {"gpu_seconds": [4e-3, 4e-3, 6e-3], "host_seconds": 1e-4, "graph_seconds": 5e-3}}
    cudnn = {"infer": "standard", "train": "standard"}
    name = f"time {SHAPES[0]}"
    kept.add("times", outcome(name, JUDGED | {"times": {"infer": mode, "train": both}, "cudnn": cudnn}))
    kept.results["not_reached"] = ["time something"]
    kept.write()
    found = {table.title: table.rows for table in tables(proof(tmp_path))}
    assert found["Error over tolerance: at most 1 agrees"] == [
        ["lstm H=64", "bf16", "infer", "0.5", "DISAGREES: infinite (gradient of x)"],
        ["gru H=100", "fp16", "train", "", "crashed"],
    ]
    told = str(SHAPES[0])
    assert found["Times"] == [
        [told, "infer", "7.81", "3.91", "-", "", "", "", "standard", "", "0.5"],
        [told, "train", "7.81", "3.91", "-", "15.62", "0.39", "19.53", "standard", "2.00x", "0.5"],
    ]
    assert found["Not served, failed, or not reached"] == [
        ["check gru fp16 tiled H=100 train", "crashed", "its process was ended by SIGSEGV"],
        ["time something", "not reached", ""],
    ]
    assert summary(kept.results) == "2 agrees, 1 disagrees, 1 crashed; not reached: 1; 0 s."
    assert "DISAGREES" in markdown(kept.results)


def goes_wrong(how):
    if how == "disagrees":
        return WRONG
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def ready(): ...


def planned(*hows, seconds=60.0):
    tasks = [Task(f"check lstm bf16 tiled H={k} infer", goes_wrong, (how,), seconds) for k, how in enumerate(hows)]
    return [Phase("checks", tasks, parallel=True, share=1)]


def test_what_goes_wrong_is_in_the_exit_status(tmp_path):
    kept = record(tmp_path)
    told = []
    proof_ = Proof(kept, planned("disagrees", "fails"), [], 1, told.append, time.monotonic())
    proof_.run(1, ready, 1)
    proof_.conclude()
    assert [item["status"] for item in proof(tmp_path)["items"]] == ["disagrees", "failed"]
    assert "CUDA error: an illegal memory access" in told[1]
    assert _status(kept.results, tested=False) == 1


def test_a_proof_of_which_the_first_items_all_fail_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.prove.proof.ENOUGH", 3)
    kept = record(tmp_path)
    given = Proof(kept, planned(*["fails"] * 5), [], 1, lambda line: None, time.monotonic())
    with pytest.raises(BackendError, match="the first 3 items all went wrong, the last by: RuntimeError: CUDA error"):
        given.run(2, ready, 1)
    found = proof(tmp_path)
    assert len(found["items"]) == 3 and len(found["not_reached"]) == 2


@pytest.mark.parametrize(
    ("items", "tests", "expected"),
    [
        (["agrees", "not served", "done"], None, 0),
        (["agrees", "hung"], None, 1),
        ([], None, 2),
        (["agrees"], {"failed": 0, "status": "exit status 0"}, 0),
        (["agrees"], {"failed": 1, "status": "exit status 1"}, 1),
        (["agrees"], {"failed": 0, "status": "exit status 4"}, 1),  # pytest itself did not run
        (["agrees"], {"failed": 0, "status": "stopped after 60 s"}, 1),
    ],
)
def test_the_exit_status(items, tests, expected):
    results = {"items": [{"status": each} for each in items], "tests": tests}
    assert _status(results, tested=tests is not None) == expected


def test_failures_of_pytest_are_kept(tmp_path, monkeypatch):
    folder = tmp_path / "tests" / "gpu"
    folder.mkdir(parents=True)
    (folder / "test_made.py").write_text(
        "import pytest\ndef test_right(): pass\ndef test_wrong(): assert 1 == 2, 'the worst is y'\n"
        "@pytest.mark.skip(reason='no room')\ndef test_skipped(): pass\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    found = suite.run_tests(120, rehearsed=False)
    assert (found["passed"], found["failed"], found["skipped"]) == (1, 1, 1), found["output"]
    assert found["reasons"] == ["no room"] and found["status"] == "exit status 1"
    (failure,) = found["failures"]
    assert failure["name"].endswith("test_made::test_wrong") and "the worst is y" in failure["message"]


@pytest.mark.faults
def test_tests_that_take_too_long_are_stopped_and_what_was_reached_is_kept(tmp_path, monkeypatch):
    folder = tmp_path / "tests" / "gpu"
    folder.mkdir(parents=True)
    (folder / "test_made.py").write_text(
        "import time\ndef test_right(): pass\ndef test_slow(): time.sleep(600)\n", encoding="utf-8"
    )
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    monkeypatch.setattr(suite.importlib.util, "find_spec", lambda name: None)  # xdist, which takes long to start
    found = suite.run_tests(10, rehearsed=False)
    assert found["status"] == "stopped after 10 s" and found["passed"] >= 1, found["output"]


COMMITTED = sorted((ROOT / "benchmarks" / "results" / "gpu").glob("*/proof.json"))


@pytest.mark.skipif(not COMMITTED, reason="no GPU's results are committed yet")
def test_committed_results_are_of_the_form_that_is_promised():
    for path in COMMITTED:
        assert not proof(path.parent)["rehearsed"]
