"""Turns the configuration into the list of what is measured, and reports its errors before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from benchmarks.cases import SUITES, Case, case_of, expand
from benchmarks.contenders import CONTENDERS, is_contender
from seqnets.cores import cores
from seqnets.errors import ConfigError
from seqnets.training.config import refuse_unknown

KEYS = {
    "preset", "seed", "device", "threads", "precision", "seconds", "turns", "limits", "unroll", "contenders", "pythons",
    "only", "suites", "run_dir",
}  # fmt: skip


LIMITS = ("prepare", "run")


class Planned(NamedTuple):
    """Holds a case, or why there is none, and who takes part."""

    given: dict[str, Any]
    case: Case | None
    refused: str
    contenders: tuple[str, ...]


def check(config: Mapping[str, Any]) -> None:
    """Check the configuration.

    Raises:
        ConfigError: The configuration is invalid; the message says what is valid.
    """
    refuse_unknown(config, KEYS, "")
    for name in ("limits", "suites", "pythons"):
        if not isinstance(config[name], dict):
            raise ConfigError(f"{name} must be a mapping, not {config[name]!r}")
    refuse_unknown(config["limits"], LIMITS, "limits.")
    for name in LIMITS:
        limit = config["limits"].get(name)
        if not isinstance(limit, (int, float)) or isinstance(limit, bool) or limit <= 0:
            raise ConfigError(f"limits.{name} must be a positive number of seconds, not {limit!r}")
    for suite, grids in config["suites"].items():
        if not isinstance(grids, list) or not all(isinstance(grid, dict) for grid in grids):
            raise ConfigError(
                f"suites.{suite} is a list of grids, as in [{{T: 20, B: 8, I: 32, H: [64, 128]}}], not {grids!r}"
            )
    refuse_unknown(config["suites"], SUITES, "suites.")
    refuse_unlisted("pythons", list(config["pythons"]), CONTENDERS, is_contender)
    for where, names in (("contenders", config["contenders"]), *_contenders_of_grids(config)):
        refuse_unlisted(where, names, CONTENDERS, is_contender)
    if config["only"] is not None:
        refuse_unlisted("only", config["only"], config["suites"])
    for name, valid in (("device", ("auto", "cpu", "cuda")), ("precision", ("ieee", "tf32"))):
        if config[name] not in valid:
            raise ConfigError(f"{name} must be one of {', '.join(valid)}, not {config[name]!r}")
    for name, kind, least in (
        ("seed", int, 0), ("threads", int, 1), ("turns", int, 1), ("unroll", int, 0), ("seconds", (int, float), 0),
    ):  # fmt: skip
        value = config[name]
        if name == "threads" and value is None:
            continue
        if not isinstance(value, kind) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{name} must be a number of at least {least}, not {value!r}")
    if config["threads"] is not None and config["threads"] > cores():
        raise ConfigError(f"threads={config['threads']}, but there are {cores()} cores to run on")
    list(plan(config))


def plan(config: Mapping[str, Any]) -> Iterator[Planned]:
    """Yield what is measured, in order, each case once.

    Raises:
        ConfigError: A grid has a key that its cases lack.
    """
    seen = set()
    for suite, grids in config["suites"].items():
        if config["only"] is not None and suite not in config["only"]:
            continue
        for grid in grids or ():
            names = grid.get("contenders") or config["contenders"]
            try:
                combinations = list(expand(suite, {k: v for k, v in grid.items() if k != "contenders"}))
            except ValueError as error:
                raise ConfigError(str(error)) from error
            for given in combinations:
                try:
                    case, refused = case_of(given), ""
                except (ValueError, TypeError) as error:
                    case, refused = None, str(error)
                key = case or str(given)
                if key not in seen:
                    seen.add(key)
                    yield Planned(given, case, refused, tuple(names))


def refuse_unlisted(where: str, names: Any, valid: Iterable[str], known: Callable[[str], bool] | None = None) -> None:
    """Raise ConfigError unless `names` is a list whose entries are all in `valid` or `known`.

    The list must not be empty, except that of ``pythons``.

    Args:
        where: The key, for messages.
        names: The value to check.
        valid: Valid names, which messages list.
        known: Tells whether another name is valid too.
    """
    if not isinstance(names, list):
        raise ConfigError(f"{where} is a list, as in {where}=[{', '.join(list(valid)[:2])}], not {names!r}")
    if not names and where != "pythons":
        raise ConfigError(f"{where} is empty, so there is nothing to do; there are {', '.join(valid)}")
    for name in names:
        if name not in valid and not (known and isinstance(name, str) and known(name)):
            close = get_close_matches(str(name), list(valid), n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ConfigError(f"{where}: there is no {name!r}; {hint}there are {', '.join(valid)}")


def _contenders_of_grids(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for suite, grids in config["suites"].items():
        for grid in grids or ():
            if "contenders" in grid:
                yield f"suites.{suite}.contenders", grid["contenders"]
