"""Makes the NamedTuple classes of states, gates, parameters and masks, whose instances can be pickled and exported."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import torch
from torch.utils._pytree import _register_namedtuple

from seqnets.forking import Lock

_records: dict[tuple[str, tuple[str, ...]], Any] = {}
_making = Lock()


def record(typename: str, fields: tuple[str, ...]) -> Any:
    """Return the NamedTuple class with this name and these fields.

    There is one class for each combination. Instances are pickled by name and fields, as no module holds the class.
    """
    with _making:
        if (typename, fields) not in _records:
            _records[typename, fields] = _make_record(typename, fields)
        return _records[typename, fields]


def _make_record(typename: str, fields: tuple[str, ...]) -> Any:
    # the name of a lambda, "<lambda>", is not an identifier
    name = typename if typename.isidentifier() else typename.rpartition("_")[2]
    cls = namedtuple(name, fields)  # type: ignore[misc]

    def reduce(values: Any) -> Any:
        return rebuild_record, (typename, fields, tuple(values))

    cls.__reduce__ = reduce  # type: ignore[method-assign,assignment]
    # torch.export.save needs a serialized name, for programs that return such a tuple
    _register_namedtuple(cls, serialized_type_name=f"seqnets.{typename}({', '.join(fields)})")
    return cls


def rebuild_record(typename: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    return record(typename, fields)(*values)


# Lets a saved state load with torch.load's default weights_only=True. It is safe: rebuild_record creates a NamedTuple
# and calls nothing else.
# States saved by version 0.1.0 name it by the module that it was in.
torch.serialization.add_safe_globals([rebuild_record, (rebuild_record, "seqnets.cells.cell.rebuild_record")])
