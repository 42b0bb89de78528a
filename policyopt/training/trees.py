"""Trees of plain data, as a configuration is one: where two differ, what stands at a path, one put over another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.paths import named


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """The dotted paths at which two trees of plain data differ."""
    if isinstance(a, list) and isinstance(b, list):
        a, b = _members(a), _members(b)
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        return [p for k in a for p in differences(a[k], b[k], f"{path}.{k}" if path else str(k))]
    return [] if a == b else [path]


def at(tree: Any, path: str) -> Any:
    """What stands at a dotted path of a tree of plain data."""
    for name in path.split("."):
        tree = (_members(tree) if isinstance(tree, list) else tree)[name]
    return tree


def _members(items: list[Any]) -> dict[str, Any]:
    """The items of a list by name: parts go by what paths call them; where these do not tell all apart, by place."""
    names = [named(item) or str(i) for i, item in enumerate(items)]
    return dict(zip(names if len(set(names)) == len(names) else map(str, range(len(items))), items, strict=True))


def deep_update(old: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """``old`` with the fields of ``new`` put over it; a mapping that names another part replaces the old part whole."""
    out = dict(old)
    for name, value in new.items():
        mine = out.get(name)
        same = (
            isinstance(mine, dict)
            and isinstance(value, Mapping)
            and value.get("part", mine.get("part")) == mine.get("part")
        )
        out[name] = deep_update(mine, value) if same and mine is not None else value
    return out
