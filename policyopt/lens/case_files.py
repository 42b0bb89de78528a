"""Files of numeric cases: where they are and whether they are of the schema."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from policyopt.errors import UserError
from policyopt.files import read_json

MAX_BYTES = 16 << 20
"""Of a file of cases."""

_WHAT = (
    "reward", "advantage", "loss", "preference_loss", "weight", "mask", "schedule", "sampler", "value_target", "metric",
    "other",
)  # fmt: skip


def case_files(paths: Iterable[str | Path]) -> list[Path]:
    """The case files among files and folders. Raises ``UserError`` for a path that is not there or has none."""
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not path.exists() or not inside:
            raise UserError(f"{path}: " + ("no *.json in this folder" if path.is_dir() else "no such file or folder"))
        found += inside
    return found


def read_cases(path: str | Path) -> list[dict[str, Any]]:
    """The cases of a file. Raises ``UserError`` naming file, case and field where it is not of the schema."""
    cases = read_json(Path(path), MAX_BYTES)
    if not isinstance(cases, list):
        raise UserError(f"{path}: expected a list of cases, got {type(cases).__name__}")
    for i, raw in enumerate(cases):
        problem = _problem(raw)
        if problem:
            raise UserError(f"{where(str(path), i, raw)}: {problem}")
    return [{**raw, "number": i} for i, raw in enumerate(cases)]


def _problem(raw: Any) -> str | None:
    """What is wrong with the outline of a case."""
    if not isinstance(raw, dict):
        return f"expected an object, got {type(raw).__name__}"
    for field, kind, name in (
        ("id", str, "text"),
        ("case", str, "text"),
        ("given", dict, "an object"),
        ("expect", dict, "an object"),
    ):
        if not isinstance(raw.get(field), kind):
            return f"{field}: expected {name}, got {type(raw[field]).__name__ if field in raw else 'nothing'}"
    if not raw["expect"]:
        return "expect: empty, so there is nothing to compare"
    if raw.get("what") not in _WHAT:
        return f"what: expected one of {', '.join(_WHAT)}, got {raw.get('what')!r}"
    params = raw["given"].get("params")
    return (
        None
        if params is None or isinstance(params, dict)
        else f"given.params: expected an object, got {type(params).__name__}"
    )


def where(path: str, number: int, raw: Any) -> str:
    """How a case is named in messages: its file, its number, its name."""
    name = raw.get("case") if isinstance(raw, dict) else None
    return f"{path}: case {number}" + (f" ({name})" if name else "")
