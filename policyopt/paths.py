"""Paths to a field of a part, by names: ``surrogate.high``, ``regularizers.KL.coef``.

Where a slot holds several parts, the name after it is a part's label or its class, so that it does not matter what else
stands there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from policyopt.errors import nearest
from policyopt.part import Part


def get(node: Any, path: str) -> Any:
    """What stands at a path. Raises ``KeyError`` for one that does not exist, or that fits two parts."""
    for name in path.split("."):
        node = _child(node, name, path)
    return node


def put(node: Any, path: str, value: Any) -> Any:
    """``node`` with another value at a path. Raises as :func:`get`."""
    return _put(node, path.split("."), value, path)


def named(data: Any) -> str | None:
    """What paths call a part that is written as plain data; None for data that is no part."""
    if not isinstance(data, Mapping) or "part" not in data:
        return None
    return str(data.get("label") or str(data["part"]).rpartition(":")[2])


def _child(node: Any, name: str, path: str) -> Any:
    if not isinstance(node, tuple):
        names = [f.name for f in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else []
        if name in names:
            return getattr(node, name)
        raise KeyError(f"{path!r}: {type(node).__name__} has no field {name!r}{_advice(name, names)}")
    return node[_place(node, name, path)]


def _place(members: tuple[Any, ...], name: str, path: str) -> int:
    """Where a name stands among the parts of a slot; in a tuple of plain numbers the name is the place."""
    names = [m.handle if isinstance(m, Part) else str(i) for i, m in enumerate(members)]
    if names.count(name) == 1:
        return names.index(name)
    if name in names:
        raise KeyError(f"{path!r}: {names.count(name)} parts are called {name!r}; tell them apart by labels")
    raise KeyError(f"{path!r}: nothing is called {name!r} there{_advice(name, names)}")


def _advice(name: str, names: list[str]) -> str:
    return f"; {nearest(name, names)}" if names else ""


def _put(node: Any, names: list[str], value: Any, path: str) -> Any:
    if not names:
        return value
    child = _put(_child(node, names[0], path), names[1:], value, path)
    if isinstance(node, tuple):
        i = _place(node, names[0], path)
        return (*node[:i], child, *node[i + 1 :])
    return dataclasses.replace(node, **{names[0]: child})
