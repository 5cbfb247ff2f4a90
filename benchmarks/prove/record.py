"""Keeps a run in ``proof.json``, which schema.json defines.

The file is rewritten after every item, so that nothing is lost, whatever ends the run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.prove.workers import Outcome
from seqnets.errors import DataError

SCHEMA = Path(__file__).with_name("schema.json")
NAME = "proof.json"
FORMAT = 1
# A run is resumed only if all of these are unchanged
SAME = ("format", "rehearsed", "gpu", "driver", "torch", "triton", "cuda", "commit", "source")
BROKEN = ("failed", "crashed", "hung", "no memory")  # what the item itself may not have caused


class Record:
    """Holds the results of one folder.

    Raises:
        DataError: The folder cannot be written, or holds something that is no proof, or a proof of something else.
    """

    def __init__(self, folder: Path, environment: dict[str, Any], rehearsed: bool) -> None:
        self.path = folder / NAME
        self.results: dict[str, Any] = {
            "format": FORMAT, "rehearsed": rehearsed, **environment, "runs": [], "items": [], "not_reached": [],
            "tests": None,
        }  # fmt: skip
        if folder.is_file():
            raise DataError(f"{folder} is a file, and --output must be a folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            known = self._read()
        except OSError as error:
            raise DataError(f"{folder} cannot be used: {error.strerror}; name another folder by --output") from error
        if known is not None:
            if known.get("commit") is None or self.results["commit"] is None:  # the digest of the source tells instead
                known["commit"] = self.results["commit"] = known.get("commit") or self.results["commit"]
            other = [name for name in SAME if known.get(name) != self.results.get(name)]
            if other:
                before, now = (str(found.get(other[0]))[:40] for found in (known, self.results))
                raise DataError(
                    f"{folder} holds results that differ in {', '.join(other)} "
                    f"({other[0]}: {before} there, {now} here); name another folder by --output"
                )
            self.results = known
        self.write()

    def _read(self) -> dict[str, Any] | None:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DataError(f"{self.path} is not JSON ({error}); name another folder by --output") from error
        if not isinstance(known, dict) or not all(isinstance(known.get(name), list) for name in ("items", "runs")):
            raise DataError(f"{self.path} is not a proof of seqnets; name another folder by --output")
        return known

    def knows(self, name: str) -> bool:
        return any(item["name"] == name for item in self.results["items"])

    def forget_broken(self) -> None:
        """Drop the items that failed, crashed, hung or had no memory, so that they are done again."""
        self.results["items"] = [item for item in self.results["items"] if item["status"] not in BROKEN]

    def add(self, phase: str, outcome: Outcome) -> dict[str, Any]:
        """Add an outcome, which `write` keeps, and return it in JSON types."""
        item = {
            "phase": phase,
            "name": outcome.task.name,
            "status": status(outcome),
            "seconds": round(outcome.seconds, 2),
            "why": outcome.found.get("not_served") or outcome.why,
            "details": outcome.details,
            "found": outcome.found,
        }
        self.results["items"].append(item)
        return item

    def write(self) -> None:
        self.save(NAME, json.dumps(self.results, indent=1, allow_nan=False) + "\n")

    def save(self, name: str, text: str) -> None:
        """Replace a file of the folder atomically.

        Raises:
            DataError: The file cannot be written.
        """
        path = self.path.with_name(name)
        temporary = path.with_name(name + ".tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}; name another folder by --output") from error


def status(outcome: Outcome) -> str:
    """Return in a word or two what became of an item."""
    if outcome.status != "done":
        return "no memory" if "out of memory" in (outcome.why or "") else outcome.status
    verdicts = [told["agrees"] for told in verdicts_of(outcome.found)]
    if False in verdicts:
        return "disagrees"
    if "not_served" in outcome.found:
        return "not served"
    return "agrees" if True in verdicts else "done"  # where nothing was computed, nothing is judged


def verdicts_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all verdicts in what was found, however deeply nested: the mappings that have ``agrees``."""
    nested = [each for value in found.values() if isinstance(value, dict) for each in verdicts_of(value)]
    return [found, *nested] if "agrees" in found else nested
