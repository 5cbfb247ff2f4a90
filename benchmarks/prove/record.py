"""What a run keeps: ``proof.json``, written anew after every item, so that whatever ends a run loses nothing. schema.json says its form."""

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
# A run goes on only where all of these are as they were
SAME = ("format", "rehearsed", "gpu", "driver", "torch", "triton", "cuda", "source")


class Record:
    """The results of one folder.

    Raises:
        DataError: the folder cannot be written, or holds what is no proof, or the proof of something else.
    """

    def __init__(self, folder: Path, surroundings: dict[str, Any], rehearsed: bool) -> None:
        self.path = folder / NAME
        self.results: dict[str, Any] = {
            "format": FORMAT, "rehearsed": rehearsed, **surroundings, "runs": [], "items": [], "not_reached": [], "tests": None,
        }  # fmt: skip
        try:
            folder.mkdir(parents=True, exist_ok=True)
            known = self._read()
        except OSError as error:
            raise DataError(f"{folder} cannot be used: {error.strerror}; name another folder by --output") from error
        if known is not None:
            other = [name for name in SAME if known.get(name) != self.results.get(name)]
            if other:
                raise DataError(
                    f"{folder} holds the proof of another {', '.join(other)} ({known.get(other[0])!r}, and here it is "
                    f"{self.results.get(other[0])!r}); name another folder by --output"
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
        if not isinstance(known, dict) or not isinstance(known.get("items"), list):
            raise DataError(f"{self.path} is no proof; name another folder by --output")
        return known

    def knows(self, name: str) -> bool:
        return any(item["name"] == name for item in self.results["items"])

    def add(self, phase: str, outcome: Outcome) -> dict[str, Any]:
        """Keep an outcome; the item as it is told in JSON."""
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
        self.write()
        return item

    def write(self) -> None:
        self.save(NAME, json.dumps(self.results, indent=1) + "\n")

    def save(self, name: str, text: str) -> None:
        """Replace a file of the folder, whole.

        Raises:
            DataError: it cannot be written.
        """
        path = self.path.with_name(name)
        temporary = path.with_name(name + ".tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}; name another folder by --output") from error


def status(outcome: Outcome) -> str:
    """In one word, or two."""
    if outcome.status != "done":
        return "no memory" if "out of memory" in (outcome.why or "") else outcome.status
    if "not_served" in outcome.found:
        return "not served"
    verdicts = [told["agrees"] for told in _verdicts(outcome.found)]
    if False in verdicts:
        return "disagrees"
    return "agrees" if True in verdicts else "done"  # nothing is judged where nothing was computed


def _verdicts(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Wherever in what was found."""
    nested = [each for value in found.values() if isinstance(value, dict) for each in _verdicts(value)]
    return [found, *nested] if "agrees" in found else nested
