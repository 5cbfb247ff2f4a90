"""Runs the tests with every supported pair of PyTorch and Triton, and makes a table of the results.

nox -r                      # all pairs; environments are kept, and what they lack is installed
nox -r --install-only       # the environments alone
nox -R -s "tests(2.11.0)"   # one pair, in its environment as it is; what follows -- goes to pytest
nox -s table                # the latest results of whole suites, in Markdown
"""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import nox

PAIRS = {
    "2.11.0": ("torch==2.11.0", "triton==3.6.0", "numpy<2.4"),  # the interpreter of Triton 3.6 fails with NumPy 2.4
    "2.13.0": ("torch==2.13.0", "triton==3.7.1"),
    "2.14.1": ("torch==2.14.1", "triton==3.8.0"),
    "newest": ("torch", "triton"),
}
HERE = Path(__file__).parent
RESULTS = HERE / ".nox" / "results"  # per pair: constraints, versions, pytest's output, its results
COLUMNS = ("torch", "triton", "numpy", "python", "passed", "failed", "skipped", "minutes", "date", "commit")
VERSIONS = """
import json, platform
from importlib.metadata import version
print(json.dumps({name: version(name) for name in ("torch", "triton", "numpy")} \
| {"python": platform.python_version()}))
"""

nox.options.sessions = ["tests"]


@nox.session
@nox.parametrize("pair", list(PAIRS), ids=list(PAIRS))
def tests(session: nox.Session, pair: str) -> None:
    """Run the tests with one pair of PyTorch and Triton; .ci/constraints.txt pins the other packages."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    constraints, log, versions, results = (RESULTS / f"{pair}.{suffix}" for suffix in ("txt", "log", "json", "xml"))
    own = {re.split("[=<]", requirement)[0] for requirement in PAIRS[pair]}
    lines = (HERE / ".ci" / "constraints.txt").read_text().splitlines()
    constraints.write_text("\n".join(line for line in lines if line.partition("==")[0] not in own))
    session.install("--upgrade", "--constraint", str(constraints), *PAIRS[pair], "--editable", ".[dev]")

    found = session.run("python", "-c", VERSIONS, silent=True)
    if found is None:  # nox --install-only
        return
    commit = session.run("git", "describe", "--always", "--dirty", external=True, silent=True)
    session.log(f"{str(found).strip()}; pytest writes to {log}")
    arguments = session.posargs
    if not arguments:  # the table shows whole suites only
        results.unlink(missing_ok=True)
        versions.write_text(json.dumps(json.loads(str(found)) | {"commit": str(commit).strip()}))
        arguments = [f"--junitxml={results}"]
    with log.open("w") as file:
        session.run("python", "-m", "pytest", *arguments, stdout=file, stderr=file)


@nox.session(venv_backend="none")
def table(session: nox.Session) -> None:
    """Print the latest results of every pair, in Markdown."""
    known = [_row(pair) for pair in PAIRS if (RESULTS / f"{pair}.xml").exists()]
    if not known:
        session.error("no results yet: nox -r runs the tests")
    rows = [COLUMNS, ["---"] * len(COLUMNS), *known]
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


def _row(pair: str) -> list[str]:
    suite = ElementTree.parse(RESULTS / f"{pair}.xml").find("testsuite")
    assert suite is not None, "pytest writes one"
    ran, failures, errors, skipped = (int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped"))
    row = json.loads((RESULTS / f"{pair}.json").read_text())
    row |= {"passed": ran - failures - errors - skipped, "failed": failures + errors, "skipped": skipped}
    row |= {"minutes": round(float(suite.attrib["time"]) / 60), "date": suite.attrib["timestamp"][:10]}
    return [str(row[column]) for column in COLUMNS]
