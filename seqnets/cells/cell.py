"""The `@cell` decorator: a plain PyTorch step function becomes the one definition of a recurrent cell."""

from __future__ import annotations

import importlib
import keyword
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from seqnets.errors import CellError

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
    """

    def __init__(
        self,
        step: Callable[..., Any],
        gates: int | Sequence[str],
        states: Sequence[str],
        params: Sequence[str] | Mapping[str, float] = (),
        masks: Sequence[str] = (),
    ) -> None:
        self.name = step.__name__
        self.step = step
        self.__doc__ = step.__doc__
        self.__module__, self.__qualname__ = step.__module__, step.__qualname__
        for what, names in (("states", states), ("params", params), ("masks", masks)):
            if isinstance(names, str):
                raise CellError(f"cell {self.name!r}: {what} is the string {names!r}; write {what}=({names!r},)")
        if isinstance(gates, str) or not isinstance(gates, int | Sequence):
            raise CellError(f"cell {self.name!r}: gates is a number or a tuple of names, not {gates!r}")
        self.gate_names = None if isinstance(gates, int) else tuple(gates)
        self.gates: int = gates if isinstance(gates, int) else len(gates)
        self.states = tuple(states)
        self.params = (
            {name: float(v) for name, v in params.items()}
            if isinstance(params, Mapping)
            else dict.fromkeys(params, 0.0)
        )
        self.masks = tuple(masks)
        self._check_names()
        self.State = self._record("State", self.states)
        self.Params = self._record("Params", self.params)
        self.Masks = self._record("Masks", self.masks)
        self.Gates = self._record("Gates", self.gate_names) if self.gate_names else None
        self._probe(width=3, first=3)

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
        return self.State(new) if isinstance(new, Tensor) else self.State(*new)

    def allows_projection(self) -> bool:
        """Whether the first state may be narrower than H (``proj_size``): the step must not read it itself."""
        try:
            self._probe(width=5, first=3)
        except CellError:
            return False
        return True

    def _check_names(self) -> None:
        if self.gates < 1 or not self.states:
            raise CellError(f"cell {self.name!r}: a cell has at least one gate and one state")
        names = [*self.states, *self.params, *self.masks]
        for name in [*names, *(self.gate_names or ())]:
            if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
                raise CellError(f"cell {self.name!r}: {name!r} cannot be a name; use a plain identifier")
        for name in names:
            if names.count(name) > 1 or name in RESERVED:
                raise CellError(
                    f"cell {self.name!r}: the name {name!r} is taken; states, params and masks share one "
                    f"namespace, in which {', '.join(RESERVED)} are the layer's"
                )

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
        except Exception as error:
            raise CellError(
                f"cell {self.name!r}: its step failed on {self.gates} gates of shape (2, {width}): {error}"
            ) from error
        for name, value in zip(self.states, new, strict=True):
            if not isinstance(value, Tensor) or value.shape != (2, width):
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise CellError(
                    f"cell {self.name!r}: its step must return {self.states} as tensors of the gates' shape (2, {width}), "
                    f"in that order, but {name!r} came back as {got}"
                )

    def _record(self, kind: str, fields: Any) -> Any:
        """A NamedTuple class that pickles by way of its cell, as it has no place in a module of its own."""
        prefix = self.name if self.name.isidentifier() else "cell"  # a lambda has a name that no class can have
        record = namedtuple(f"{prefix}_{kind}", tuple(fields))  # type: ignore[misc]

        def reduce(values: Any) -> Any:
            return _rebuild_record, (self, kind, tuple(values))

        record.__reduce__ = reduce  # type: ignore[method-assign,assignment]
        return record

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
    states: Sequence[str],
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
    return lambda step: Cell(step, gates, states, params, masks)


def _find_cell(module: str, qualname: str, spec: tuple[Any, ...]) -> Cell:
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    # `fast = cell(...)(step)` leaves the function itself under its name
    return found if isinstance(found, Cell) else Cell(found, *spec)


def _rebuild_record(cell: Cell, kind: str, values: tuple[Any, ...]) -> Any:
    return getattr(cell, kind)(*values)
