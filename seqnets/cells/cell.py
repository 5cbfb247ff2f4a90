"""Provides the `@cell` decorator, which turns a plain PyTorch step function into a recurrent cell."""

from __future__ import annotations

import importlib
import keyword
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from seqnets.cells.outside import global_names, numbers_read
from seqnets.cells.records import rebuild_record, record  # noqa: F401 - states that 0.1.0 pickled find it here
from seqnets.cells.registry import register
from seqnets.errors import CellError

RESERVED = ("weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh")


class Cell:
    """Defines a recurrent cell: its step function, and the names of what the step takes. Immutable.

    Calling the cell runs one step and returns the new states as ``cell.State``, even if there is only one.

    Attributes:
        name: the name of the step function.
        step: the step function.
        gates: G, the number of gates, and hence of ``(B, H)`` tensors in ``x`` and in ``r``.
        gate_names: the names of the gates, or None if only a number was given.
        states: the names of the states; the first is the layer's output and is multiplied by the recurrent weight.
        params: maps parameter names to initial values; each parameter is a trainable vector ``(H,)``.
        masks: the names of the masks; each is ``(B, H)``, sampled by the layer.
        State, Params, Masks: the NamedTuple classes of the states, parameters and masks.
        Gates: the NamedTuple class of the gates, or None without gate names.
        key: a string from which `find_cell` returns the cell, for compiled graphs, which cannot hold the cell itself.

    Raises:
        CellError: If the definition is unusable; see `cell`.
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
        self.key = register(self)

    def __call__(
        self,
        x: Sequence[Tensor],
        r: Sequence[Tensor],
        state: Sequence[Tensor],
        params: Sequence[Tensor] = (),
        masks: Sequence[Tensor] = (),
    ) -> Any:
        """Run one step: ``cell(x, r, state[, params][, masks])`` -> ``cell.State``.

        Args:
            x: G input projections ``(B, H)``, ``bias_ih`` included.
            r: G recurrent projections ``(B, H)``, ``bias_hh`` included.
            state: the states ``(B, H)``, in the order of ``cell.states``.
            params: vectors ``(H,)``, in the order of ``cell.params``.
            masks: tensors ``(B, H)``, in the order of ``cell.masks``.

        Raises:
            CellError: If the step does not return as many values as the cell has states.
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
        """Tell whether the first state may be narrower than H (``proj_size``): the step must not read it itself."""
        try:
            self._probe(width=5, first=3)
        except CellError:
            return False
        return True

    def numbers_from_outside(self) -> dict[str, float]:
        """Return the current values of numbers that the step reads from its module and from enclosing functions."""
        return numbers_read(self._function, self._global_names) if self.reads_outside else {}

    @cached_property
    def _function(self) -> Any:
        return getattr(self.step, "func", self.step)  # unwrap a functools.partial

    @cached_property
    def reads_outside(self) -> bool:
        """Tell whether the step reads anything by a name of its module or of an enclosing function."""
        return bool(self._global_names or getattr(self._function, "__closure__", None))

    @cached_property
    def _global_names(self) -> frozenset[str]:
        return global_names(getattr(self._function, "__code__", None))

    def why_outdated(self, numbers: Mapping[str, float]) -> str | None:
        """Compare the numbers that the step reads from outside with those from when its kernels were generated.

        Args:
            numbers: the result of `numbers_from_outside` at that time.

        Returns:
            A clause about the first number that differs, or None if none does.
        """
        for name, value in self.numbers_from_outside().items():
            if numbers.get(name) != value:
                return (
                    f"its step reads {name}, which was {numbers.get(name)} when the kernels were generated and now is "
                    f"{value}: give what changes as a parameter, a mask or a state, or define the cell again"
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
        """Run the step once on tiny tensors, so that a wrong definition raises an error where it is written."""

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
                    f"cell {self.name!r}: its step must return {self.states} as tensors of the gates' shape "
                    f"(2, {width}), in that order, but {name!r} came back as {got}"
                )

    # A cell is defined by its code, so it is pickled by name like functions and classes, and never copied.

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
        gates: the number of gates G, or their names. With names, ``x`` and ``r`` have them as attributes too (``x.i``).
        states: names of the states. The first is the layer's output, and is what ``weight_hh`` multiplies.
        params: names of trainable vectors ``(H,)``, or a mapping of names to initial values (0 unless given).
        masks: names of masks ``(B, H)`` that the layer samples, per sequence or per step (`seqnets.Mask`).

    The step is called as ``step(x, r, state[, params][, masks])``. It returns the new states in order, as a tuple, or
    as a bare tensor if there is only one. Write it in plain PyTorch over ``(B, H)``, and do not modify its arguments.

    Raises:
        CellError: If the definition is unusable: names clash, or the step fails, or it returns wrong shapes or counts.

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


def _find_cell(module: str, qualname: str, spec: tuple[Any, ...]) -> Cell:
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    # after `fast = cell(...)(step)`, the name `step` still refers to the plain function
    return found if isinstance(found, Cell) else Cell(found, *spec)
