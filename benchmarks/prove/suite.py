"""Runs the tests for GPUs with pytest, in as many processes as there are cores."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from seqnets.cores import cores

ROOT = Path(__file__).parents[2]
GRACE = 20  # seconds for pytest to report after it was told to stop
# Makes an interrupt stop pytest even where a shell started this process in the background, with interrupts ignored.
PYTEST = """
import signal, sys, pytest
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(pytest.main(sys.argv[1:]))
"""
MOST_FAILURES = 40  # after so many, the rest tells nothing new


def run_tests(seconds: float, rehearsed: bool) -> dict[str, Any]:
    """Run tests/gpu within so many seconds, and return the results in JSON types.

    A rehearsal runs one case of each test, on the stub.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        parallel = ["-n", str(cores()), "--dist", "load"] if importlib.util.find_spec("xdist") else []
        command = [
            sys.executable, "-c", PYTEST, "-p", "no:cacheprovider", "-o", "addopts=", "-q",
            f"--maxfail={MOST_FAILURES}", f"--junitxml={report}", *parallel, "tests/gpu",
        ]  # fmt: skip
        environment = os.environ | {"SEQNETS_CACHE": folder, "SEQNETS_STUB_GPU": "sample" if rehearsed else ""}
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        status, output = _wait(process, seconds)
        found = _read(report)
    return {"status": status, "seconds": time.monotonic() - began, **found, "output": output[-4000:]}


def _wait(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """Return how the process ended and what it printed. Whatever happens, none of its processes is left."""
    try:
        try:
            output, _ = process.communicate(timeout=seconds)
            return f"exit status {process.returncode}", output
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # pytest then still reports what it has
        try:
            output, _ = process.communicate(timeout=GRACE)
        except subprocess.TimeoutExpired:
            output = ""
        return f"stopped after {seconds:.0f} s", output
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _read(report: Path) -> dict[str, Any]:
    try:
        cases = list(ET.parse(report).iter("testcase"))
    except (OSError, ET.ParseError):  # it was stopped before it wrote
        cases = []
    failures = [(case, child) for case in cases for child in case if child.tag in ("failure", "error")]
    skipped = [child for case in cases for child in case if child.tag == "skipped"]
    return {
        "passed": len(cases) - len({id(case) for case, _ in failures}) - len(skipped),
        "failed": len({id(case) for case, _ in failures}),
        "skipped": len(skipped),
        "reasons": sorted({child.get("message", "") for child in skipped}),
        "failures": [
            {
                "name": f"{case.get('classname')}::{case.get('name')}",
                "message": child.get("message", "")[:1000],
                "details": (child.text or "")[-4000:],
            }
            for case, child in failures
        ],
    }
