"""Checks configurations before any work starts, and builds the objects that they describe.

Hydra rejects an unknown key on the command line, but silently merges one from an experiment file (or ``+key=…``). Here
every key must have a reader: a name in `KEYS`, a setting of the model, an argument of a node's ``_target_``, or an
argument of Lightning's Trainer.
"""

import inspect
import os
from collections.abc import Container, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seqnets.errors import ConfigError, SeqnetsError

KEYS = {
    "name", "seed", "ckpt_path", "run_dir", "test_on", "task", "data", "model", "optimizer", "scheduler", "trainer",
    "callbacks", "logger", "sweep_picture",
}  # fmt: skip
MODEL_KEYS = {"net", "cell", "backend", "init", "input_size"}
HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}

# callbacks have a group of their own; `trainer.logger=false` still turns the loggers off
TRAINER = {name: p.default for name, p in inspect.signature(Trainer).parameters.items() if name != "callbacks"}

EXPERIMENTS = Path(__file__).parents[2] / "conf" / "experiment"


def register_trainer() -> None:
    """Register ``trainer: lightning`` with Hydra, so that ``trainer.<any argument>=…`` needs no ``+``."""
    ConfigStore.instance().store(name="lightning", group="trainer", node=TRAINER)


def check_config(cfg: DictConfig) -> dict[str, Any]:
    """Check that every key has a reader, and return the resolved configuration as plain containers.

    Raises:
        ConfigError: If no experiment was chosen, a value is missing or invalid, or a key is unknown. The message names
            the key, what is valid there, and the nearest match.
    """
    if OmegaConf.is_missing(cfg, "name"):
        names = ", ".join(sorted(file.stem for file in EXPERIMENTS.glob("*.yaml")))
        raise ConfigError(f"no experiment chosen: add +experiment=<name>, with one of {names}")
    config = resolved(cfg)
    refuse_unknown(config, KEYS, "")
    refuse_unknown(config["model"], MODEL_KEYS, "model.")
    written = OmegaConf.to_yaml(cfg.model.net)
    for knob in config["model"]:
        if knob != "net" and f"${{model.{knob}}}" not in written and knob != "cell":
            raise ConfigError(f"model.{knob} has no reader: nothing in model.net is ${{model.{knob}}}")
    refuse_unknown(config["trainer"], TRAINER, "trainer.")
    if not (type(config["seed"]) is int and 0 <= config["seed"] < 2**32):  # isinstance would accept True
        raise ConfigError(f"seed is {config['seed']!r}; it must be an integer from 0 to {2**32 - 1}")
    if config["test_on"] not in ("last", "best"):
        raise ConfigError(f"test_on is {config['test_on']!r}; it must be last or best")
    _check_targets(config, "")
    parts = {name: config[name] for name in ("data", "task", "optimizer")} | {"model.net": config["model"]["net"]}
    if config["scheduler"] is not None:
        parts["scheduler"] = config["scheduler"]
    for group in ("callbacks", "logger"):
        config[group] = {name: node for name, node in (config.get(group) or {}).items() if node is not None}
        parts |= {f"{group}.{name}": node for name, node in config[group].items()}
    for name, node in parts.items():
        if not isinstance(node, dict) or "_target_" not in node:
            raise ConfigError(f"{name} names no _target_, so there is nothing to build")
    if path := config["data"].get("path"):  # the checkpoint stores it, and may be read from another folder
        config["data"]["path"] = os.path.abspath(os.path.expanduser(path))
    return config


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return `cfg` as plain containers, with its interpolations resolved.

    Raises:
        ConfigError: If a value is missing or an interpolation leads nowhere.
    """
    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'the configuration'}: {str(error).splitlines()[0]}") from error


def build(node: Mapping[str, Any], where: str, kind: type = object, **extra: Any) -> Any:
    """Build the object that a node with ``_target_`` describes, with `extra` arguments.

    Args:
        node: the node.
        where: its name, for error messages.
        kind: the type that the object must have.
        extra: further arguments of the constructor.

    Raises:
        ConfigError: If the constructor fails, or the object is not a `kind`. A SeqnetsError from the constructor passes
            unchanged.
    """
    try:
        built = instantiate(node, **extra, _convert_="all")
    except (InstantiationException, OmegaConfBaseException, TypeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, SeqnetsError):
            cause = cause.__cause__
        if isinstance(cause, SeqnetsError):
            raise cause from None
        raise ConfigError(f"{where} cannot be built: {cause}") from error
    if not isinstance(built, kind):
        raise ConfigError(f"{where} must be a {kind.__name__}, but {node['_target_']} gives a {type(built).__name__}")
    return built


def refuse_unknown(node: Mapping[str, Any], valid: Iterable[str], prefix: str) -> None:
    """Raise if a key of `node`, the part of the configuration named by `prefix`, is not in `valid`.

    Raises:
        ConfigError: The message has the nearest valid key, and all of them.
    """
    for key in node:
        if key not in valid:
            close = get_close_matches(str(key), valid, n=1)
            hint = f"did you mean {prefix}{close[0]}? " if close else ""
            raise ConfigError(f"unknown key {prefix}{key}: {hint}Valid here: {', '.join(sorted(valid))}")


def differences(before: Any, now: Any, name: str, free: Container[str]) -> list[str]:
    """List where two plain configurations differ, at any depth, as ``"name was …, is …"``; skip the keys in `free`."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in before | now if key not in free]
        return [d for key in keys for d in differences(before.get(key), now.get(key), f"{name}.{key}", free)]
    return [] if before == now else [f"{name} was {before}, is {now}"]


def _check_targets(node: Any, path: str) -> None:
    if isinstance(node, list):
        for i, child in enumerate(node):
            _check_targets(child, f"{path}{i}.")
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        try:
            target = get_object(node["_target_"])
        except Exception as error:  # whatever importing the target's module raises
            raise ConfigError(f"{path}_target_: {node['_target_']} cannot be imported: {error}") from error
        if not callable(target):
            raise ConfigError(f"{path}_target_: {node['_target_']} is a {type(target).__name__}, nothing to call")
        try:
            parameters = inspect.signature(target).parameters
        except ValueError as error:  # some builtins
            raise ConfigError(f"{path}_target_: {node['_target_']} does not say what arguments it takes") from error
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            refuse_unknown(node, HYDRA_KEYS | set(parameters), path)
    for key, child in node.items():
        _check_targets(child, f"{path}{key}.")
