"""Defines the cases that are measured. A case describes the work, not who does it.

The module needs only the standard library, because the environment of a worker may lack other packages. Sizes: T time
steps, B batch, I input size, H hidden size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

MODES = {
    "infer": "forward, no gradients",
    "train": "forward and backward: gradients of the input, every weight and bias",
    "step": "one time step, the state carried over",
}
SUITES = ("layer", "latency", "memory", "train", "kernels")
DTYPES = ("fp32", "fp16", "bf16", "fp64")
PASSES = ("forward", "backward")


@dataclass(frozen=True)
class Case:
    """Describes a case of any suite.

    Raises:
        ValueError: A value is invalid, or the values do not fit together; the message says why.
    """

    suite: str

    @property
    def key(self) -> str:
        """Return what tells the case from others, in words: its suite, and all fields that differ from the defaults."""
        told = [f"{f.name}={value}" for f in fields(self) if (value := getattr(self, f.name)) != f.default]
        return " ".join(part.removeprefix("suite=") for part in told)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class LayerCase(Case):
    """Describes a recurrent layer, or a stack of them, on one batch."""

    cell: str = "lstm"  # a name of `seqnets.CELLS`, or package.module:cell
    mode: str = "train"
    T: int = 1
    B: int = 1
    I: int = 1
    H: int = 1
    layers: int = 1
    bidirectional: bool = False
    ragged: bool = False
    dtype: str = "fp32"
    shape: str = ""  # the experiment that has this shape

    def __post_init__(self) -> None:
        for name in ("T", "B", "I", "H", "layers"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        if not isinstance(self.cell, str):
            raise ValueError(f"cell must be a name, not {self.cell!r}")
        for name, valid in (("mode", tuple(MODES)), ("dtype", DTYPES)):
            if getattr(self, name) not in valid:
                raise ValueError(f"{name} must be one of {', '.join(valid)}, not {getattr(self, name)!r}")
        if (self.mode == "step") != (self.suite == "latency") or (self.suite == "memory" and self.mode != "train"):
            raise ValueError(
                f"the suite {self.suite} is not of mode {self.mode}: latency is of step, memory of train, "
                "layer of infer or train"
            )
        if self.mode == "step" and (self.T > 1 or self.layers > 1 or self.bidirectional or self.ragged):
            raise ValueError("a step is of one layer in one direction: T=1, layers=1, no lengths")

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield the suffix of the weights' names and the input size, for each direction of each layer."""
        for layer in range(self.layers):
            for suffix in ("", "_reverse")[: self.directions]:
                yield f"l{layer}{suffix}", self.directions * self.H if layer else self.I

    def __str__(self) -> str:
        told = f"{self.cell.rpartition(':')[2]} {self.mode} T={self.T} B={self.B} I={self.I} H={self.H}"
        told += f" layers={self.layers}" if self.layers > 1 else ""
        told += " bidirectional" if self.bidirectional else ""
        told += " ragged" if self.ragged else ""
        told += f" {self.dtype}" if self.dtype != "fp32" else ""
        return told + (f" ({self.shape})" if self.shape else "")


@dataclass(frozen=True)
class TrainCase(Case):
    """Describes the training of an experiment of conf/experiment."""

    experiment: str = ""
    steps: int = 20  # per turn
    turns: int = 3  # at least
    epoch: bool = False  # take turns until an epoch is over
    overrides: tuple[str, ...] = ()  # of the experiment's configuration

    def __post_init__(self) -> None:
        if not self.experiment:
            raise ValueError("experiment must name one of conf/experiment")
        for name in ("steps", "turns"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a positive integer, not {getattr(self, name)!r}")
        object.__setattr__(self, "overrides", tuple(self.overrides))

    def __str__(self) -> str:
        return " ".join((self.experiment, *self.overrides))


@dataclass(frozen=True)
class KernelCase(Case):
    """Describes a Triton kernel that is compiled ahead of time, for a GPU that need not be present."""

    arch: str = "sm_90"
    cell: str = "lstm"
    H: int = 128
    dtype: str = "bf16"
    pass_: str = "forward"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or self.pass_ not in PASSES:
            raise ValueError(f"dtype is one of {', '.join(DTYPES)}, pass_ of {', '.join(PASSES)}")

    def __str__(self) -> str:
        return f"{self.cell.rpartition(':')[2]} {self.pass_} H={self.H} {self.dtype} {self.arch}"


KINDS: dict[str, type[Case]] = {
    "layer": LayerCase,
    "latency": LayerCase,
    "memory": LayerCase,
    "train": TrainCase,
    "kernels": KernelCase,
}


def case_of(given: Mapping[str, Any]) -> Case:
    """Build a case from a mapping, as the inverse of `Case.to_dict`."""
    return KINDS[given["suite"]](**given)


def expand(suite: str, grid: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every combination of a grid's values, as arguments of `case_of`; a list stands for several values.

    Raises:
        ValueError: The suite has no such key; the message lists those that it has.
    """
    valid = [f.name for f in fields(KINDS[suite]) if f.name != "suite"]
    for name in grid:
        if name not in valid:
            raise ValueError(f"suites.{suite}: there is no {name!r}; a case has {', '.join(valid)}")
    lists = {
        name: list(value) if isinstance(value, list) and name != "overrides" else [value]
        for name, value in grid.items()
    }
    for values in itertools.product(*lists.values()):
        yield {"suite": suite, **dict(zip(lists, values, strict=True))}
