"""The `@cell` decorator: a plain PyTorch step function becomes the one definition of a recurrent cell."""

from __future__ import annotations

import dis
import importlib
import keyword
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import _register_namedtuple

from seqnets.errors import CellError
from seqnets.forking import Lock

RESERVED = ("weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh")


class Cell:
    """A recurrent cell: its step and the names of what the step takes. Immutable.

    Calling it runs one step and returns the new states as ``cell.State``, also where there is only one.

    Attributes:
        name: the step's name.
        gates: G, the number of gates, hence of ``(B, H)`` tensors in ``x`` and in ``r``.
        gate_names: their names, or None where only a number was given.
        states: state names; the first is the layer's output and meets the recurrent weight.
        params: parameter name -> initial value; each is a trainable vector ``(H,)``.
        masks: mask names; each is ``(B, H)``, drawn by the layer.
        State, Params, Masks: the NamedTuple classes of those.
        key: a string by which `find_cell` finds it, for compiled graphs, which cannot hold it.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        gates: int | Sequence[str],
        states: Sequence[str],
        params: Sequence[str] | Mapping[str, float] = (),
        masks: Sequence[str] = (),
    ) -> None:
        if not callable(step):
            raise CellError(f"@seqnets.cell decorates a step function, not {step!r}")
        self.name = getattr(step, "__name__", type(step).__name__)
        self.step = step
        self.__doc__ = step.__doc__
        self.__module__, self.__qualname__ = step.__module__, getattr(step, "__qualname__", self.name)
        for what, names in (("states", states), ("params", params), ("masks", masks)):
            if isinstance(names, str):
                raise CellError(f"cell {self.name!r}: {what} is the string {names!r}; write {what}=({names!r},)")
        if isinstance(gates, str) or not isinstance(gates, int | Sequence):
            raise CellError(f"cell {self.name!r}: gates is a number or a tuple of names, not {gates!r}")
        self.gate_names = None if isinstance(gates, int) else tuple(gates)
        self.gates: int = gates if isinstance(gates, int) else len(gates)
        self.states = tuple(states)
        self.params = dict(params) if isinstance(params, Mapping) else dict.fromkeys(params, 0.0)
        self.masks = tuple(masks)
        self._check_names()
        self.State = record(f"{self.name}_State", self.states)
        self.Params = record(f"{self.name}_Params", tuple(self.params))
        self.Masks = record(f"{self.name}_Masks", self.masks)
        self.Gates = record(f"{self.name}_Gates", self.gate_names) if self.gate_names else None
        self._probe(width=3, first=3)
        self.key = _register(self)

    def __call__(
        self,
        x: Sequence[Tensor],
        r: Sequence[Tensor],
        state: Sequence[Tensor],
        params: Sequence[Tensor] = (),
        masks: Sequence[Tensor] = (),
    ) -> Any:
        """One step, ``cell(x, r, state[, params][, masks])`` -> ``cell.State``.

        Args:
            x: G input projections ``(B, H)``, ``bias_ih`` included.
            r: G recurrent projections ``(B, H)``, ``bias_hh`` included.
            state: the states ``(B, H)``, in the order of ``cell.states``.
            params: vectors ``(H,)``, in the order of ``cell.params``.
            masks: tensors ``(B, H)``, in the order of ``cell.masks``.
        """
        gates = self.Gates
        arguments = [tuple(x), tuple(r)] if gates is None else [gates(*x), gates(*r)]
        arguments.append(self.State(*state))
        if self.params:
            arguments.append(self.Params(*params))
        if self.masks:
            arguments.append(self.Masks(*masks))
        new = self.step(*arguments)
        values = (new,) if isinstance(new, Tensor) else new
        if not isinstance(values, tuple | list) or len(values) != len(self.states):
            got = f"{len(values)} values" if isinstance(values, tuple | list) else type(new).__name__
            raise CellError(f"cell {self.name!r}: its step must return {', '.join(self.states)}, but returned {got}")
        return self.State(*values)

    def allows_projection(self) -> bool:
        """Whether the first state may be narrower than H (``proj_size``): the step must not read it itself."""
        try:
            self._probe(width=5, first=3)
        except CellError:
            return False
        return True

    def numbers_from_outside(self) -> dict[str, float]:
        """Numbers that the step reads from its module and from enclosing functions, as they are now."""
        step = getattr(self.step, "func", self.step)  # of a partial
        code = getattr(step, "__code__", None)
        if code is None:
            return {}
        outside = {name: step.__globals__[name] for name in self._names_outside if name in step.__globals__}
        for name, held in zip(code.co_freevars, step.__closure__ or (), strict=True):
            try:
                outside[name] = held.cell_contents
            except ValueError:  # not assigned yet
                continue
        return {name: value for name, value in outside.items() if isinstance(value, int | float)}

    @cached_property
    def _names_outside(self) -> frozenset[str]:
        """Of what the step reads from its module."""
        return _global_names(getattr(self.step, "func", self.step).__code__)

    def why_outdated(self, numbers: Mapping[str, float]) -> str | None:
        """Which of the numbers from outside is not what it was when kernels were generated, as a clause, or None."""
        for name, value in self.numbers_from_outside().items():
            if numbers.get(name) != value:
                return (
                    f"its step reads {name}, which was {numbers.get(name)} when the kernels were generated and now is {value}: "
                    "give what changes as a parameter, a mask or a state, or define the cell again"
                )
        return None

    def _check_names(self) -> None:
        if self.gates < 1 or not self.states:
            raise CellError(f"cell {self.name!r}: a cell has at least one gate and one state")
        owned = [*self.states, *self.params, *self.masks]
        for names in (owned, list(self.gate_names or ())):
            for name in names:
                if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or hasattr((), name):
                    raise CellError(f"cell {self.name!r}: {name!r} cannot be a name; use another plain identifier")
                if names.count(name) > 1 or name in RESERVED or name.startswith("_"):
                    raise CellError(
                        f"cell {self.name!r}: the name {name!r} is taken; states, params and masks share one "
                        f"namespace, in which {', '.join(RESERVED)} and a leading underscore are the layer's"
                    )
        for name, value in self.params.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise CellError(f"cell {self.name!r}: the initial value of {name!r} must be a number, got {value!r}")

    def _probe(self, width: int, first: int) -> None:
        """Run the step once on tiny tensors, so that a wrong definition is refused where it is written."""

        def full(n: int, size: int = width, rows: tuple[int, ...] = (2,)) -> list[Tensor]:
            return [torch.full((*rows, size), 0.5, device="cpu", dtype=torch.float32) for _ in range(n)]

        state = full(1, first) + full(len(self.states) - 1)
        try:
            with torch.no_grad():
                new = self(
                    full(self.gates), full(self.gates), state, full(len(self.params), rows=()), full(len(self.masks))
                )
        except CellError:
            raise
        except Exception as error:
            takes = ["x", "r", "state"] + ["params"] * bool(self.params) + ["masks"] * bool(self.masks)
            raise CellError(
                f"cell {self.name!r}: calling its step as step({', '.join(takes)}), with gates "
                f"{', '.join(self.gate_names or [str(n) for n in range(self.gates)])} of shape (2, {width}), "
                f"raised {type(error).__name__}: {error}"
            ) from error
        for name, value in zip(self.states, new, strict=True):
            if not isinstance(value, Tensor) or value.shape != (2, width):
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise CellError(
                    f"cell {self.name!r}: its step must return {self.states} as tensors of the gates' shape (2, {width}), "
                    f"in that order, but {name!r} came back as {got}"
                )

    # A cell is defined by its code, so it is pickled by name, as functions and classes are, and never copied.

    def __reduce__(self) -> Any:
        if "<locals>" in self.__qualname__:
            raise CellError(
                f"cell {self.name!r} was defined inside a function, so it cannot be pickled; define it at module level"
            )
        spec = (self.gate_names or self.gates, self.states, self.params, self.masks)
        return _find_cell, (self.__module__, self.__qualname__, spec)

    def __deepcopy__(self, memo: Any) -> Cell:
        return self

    def __repr__(self) -> str:
        return f"<cell {self.name}: {self.gates} gates, states {', '.join(self.states)}>"


def cell(
    gates: int | Sequence[str],
    states: Sequence[str] = (),
    params: Sequence[str] | Mapping[str, float] = (),
    masks: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Cell]:
    """Turn a step function into a `Cell`.

    Args:
        gates: the number of gates G, or their names; with names, ``x`` and ``r`` also answer to them (``x.i``).
        states: names of the states. The first is what the layer outputs and what meets ``weight_hh``.
        params: names of trainable vectors ``(H,)``, or a mapping of name to initial value (0 unless given).
        masks: names of masks ``(B, H)`` that the layer draws, per sequence or per step (`seqnets.Mask`).

    The step is called as ``step(x, r, state[, params][, masks])`` and returns the new states in order, as a tuple,
    or as a bare tensor where there is one. Write it in plain PyTorch over ``(B, H)``, and do not write into its arguments.

    Raises:
        CellError: the definition is unusable: names clash, the step fails, or returns other shapes or counts.

    Example:
        >>> import seqnets
        >>> @seqnets.cell(gates=("f", "c"), states=("h",))
        ... def light(x, r, state):
        ...     forget = (x.f + r.f).sigmoid()
        ...     return forget * state.h + (1 - forget) * (x.c + r.c).tanh()
        >>> layer = seqnets.Recurrent(light, input_size=8, hidden_size=16)
    """
    if callable(gates):
        raise CellError("@seqnets.cell needs its arguments: @seqnets.cell(gates=4, states=('h', 'c'))")
    return lambda step: Cell(step, gates, states, params, masks)


_defined: dict[str, Cell] = {}
_records: dict[tuple[str, tuple[str, ...]], Any] = {}
_registering = Lock()


def _register(cell: Cell) -> str:
    """``module:qualname``, numbered from the second definition of that name on: graphs of the first still mean the first."""
    name = f"{cell.__module__}:{cell.__qualname__}"
    with _registering:
        key, number = name, 1
        while key in _defined:
            number += 1
            key = f"{name}#{number}"
        _defined[key] = cell
    return key


def find_cell(key: str) -> Cell:
    """The cell of that `Cell.key`, importing the module that defines it where needed.

    Raises:
        CellError: there is none; a cell defined inside a function is known only once that has run.
    """
    way_out = "define it before a graph that was compiled or exported with it runs"
    if key not in _defined:
        try:
            importlib.import_module(key.partition(":")[0])
        except ImportError as error:
            raise CellError(
                f"there is no cell {key!r}, for its module cannot be imported ({error}); {way_out}"
            ) from error
    if key not in _defined:
        raise CellError(f"there is no cell {key!r}; {way_out}")
    return _defined[key]


def _find_cell(module: str, qualname: str, spec: tuple[Any, ...]) -> Cell:
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    # `fast = cell(...)(step)` leaves the function itself under its name
    return found if isinstance(found, Cell) else Cell(found, *spec)


def _global_names(code: CodeType) -> frozenset[str]:
    """That a function reads, and those defined in it."""
    own = {instruction.argval for instruction in dis.get_instructions(code) if instruction.opname == "LOAD_GLOBAL"}
    inner = (_global_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return frozenset(own.union(*inner))


def record(typename: str, fields: tuple[str, ...]) -> Any:
    """Return the NamedTuple class of that name and these fields: one for each, which is pickled by both, as no module has it."""
    with _registering:
        if (typename, fields) not in _records:
            _records[typename, fields] = _make_record(typename, fields)
        return _records[typename, fields]


def _make_record(typename: str, fields: tuple[str, ...]) -> Any:
    # a lambda's is none that a class can have
    name = typename if typename.isidentifier() else typename.rpartition("_")[2]
    cls = namedtuple(name, fields)  # type: ignore[misc]

    def reduce(values: Any) -> Any:
        return rebuild_record, (typename, fields, tuple(values))

    cls.__reduce__ = reduce  # type: ignore[method-assign,assignment]
    # torch.export.save wants a name too, for programs that return one
    _register_namedtuple(cls, serialized_type_name=f"seqnets.{typename}({', '.join(fields)})")
    return cls


def rebuild_record(typename: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    return record(typename, fields)(*values)


# so that a saved state loads with torch.load's default weights_only=True: it makes a NamedTuple and calls nothing else
torch.serialization.add_safe_globals([rebuild_record])
