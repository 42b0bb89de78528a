"""Numeric cases against the library: pass, fail with both numbers, or unsupported with the reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from policyopt.errors import UserError
from policyopt.lens.case import Run
from policyopt.lens.given import Malformed, Unsupported
from policyopt.lens.words import words_of
from policyopt.registry import get_method

TOLERANCE = 1e-6
"""Allowed relative error, in float64; numbers below 1e-3 are held to the absolute error of one of that size."""

_WHAT = (
    "reward", "advantage", "loss", "preference_loss", "weight", "mask", "schedule", "sampler", "value_target", "metric",
    "other",
)  # fmt: skip


@dataclass(frozen=True)
class Detail:
    """One expected key, at the place where it is furthest off."""

    key: str
    at: str
    """Index of the place, such as ``[2][0]``; empty for a single number."""
    expected: Any
    got: Any
    error: float
    """Relative error; infinite where the shapes differ or the number is not one."""

    @property
    def ok(self) -> bool:
        """Within the tolerance."""
        return self.error <= TOLERANCE

    def __str__(self) -> str:
        return f"{self.key}{self.at}: expected {self.expected}, got {self.got}, relative error {self.error:.1e}"


@dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    file: str
    id: str
    case: str
    status: Literal["pass", "fail", "unsupported"]
    details: tuple[Detail, ...] = ()
    """One for each expected key that was computed."""
    reason: str = ""
    """Why the case failed or is unsupported."""

    def __str__(self) -> str:
        return f"{self.status:11} {self.id}: {self.case}" + (f": {self.reason}" if self.reason else "")


def verify_file(path: str | Path, words: Path | None = None) -> list[Outcome]:
    """Run all cases of a file of the catalogue's schema against the methods that they name.

    A case passes when every expected key agrees to a relative error of 1e-6 in float64, and fails when a computed one
    does not. It is unsupported when the library has no such method, or no meaning for a column, hyper-parameter or key.
    What a method's cases call things is read from the folder ``words`` (unset: see :func:`~policyopt.lens.words.words_of`).
    Raises :class:`~policyopt.errors.UserError`, naming file, case and field, where the file breaks the schema.
    """
    folder = words_of(Path(path), words)
    return [_verify(str(path), raw, folder) for raw in read_cases(path)]


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
    try:
        cases = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(cases, list):
        raise UserError(f"{path}: expected a list of cases, got {type(cases).__name__}")
    for i, raw in enumerate(cases):
        problem = _problem(raw)
        if problem:
            raise UserError(f"{_where(str(path), i, raw)}: {problem}")
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


def _where(path: str, number: int, raw: Any) -> str:
    name = raw.get("case") if isinstance(raw, dict) else None
    return f"{path}: case {number}" + (f" ({name})" if name else "")


@torch.no_grad()
def _verify(file: str, raw: Mapping[str, Any], words: Path | None) -> Outcome:
    details: list[Detail] = []
    missing: list[str] = []

    def outcome(status: Literal["pass", "fail", "unsupported"], reason: str = "") -> Outcome:
        return Outcome(file, raw["id"], raw["case"], status, tuple(details), reason)

    try:
        run = Run(get_method(raw["id"]), raw["what"], raw["given"], words)
        for key, expected in raw["expect"].items():
            try:
                details.append(compare(key, expected, run.value(key, expected)))
            except Unsupported as error:
                missing.append(str(error))
    except KeyError as error:
        return outcome("unsupported", error.args[0])
    except Unsupported as error:
        return outcome("unsupported", str(error))
    except Malformed as error:
        raise UserError(f"{_where(file, raw['number'], raw)}: {error}") from error
    wrong = [d for d in details if not d.ok]
    if wrong:
        return outcome("fail", "; ".join(map(str, wrong)))
    return outcome("unsupported", "; ".join(missing)) if missing else outcome("pass")


def compare(key: str, expected: Any, got: Any) -> Detail:
    """The place where two nested lists (or mappings) of numbers differ most."""
    worst = Detail(key, "", expected, got, -1.0)
    for detail in _places(key, "", expected, got):
        if detail.error > worst.error:
            worst = detail
    return worst if worst.error >= 0 else Detail(key, "", expected, got, 0.0)


def _places(key: str, at: str, expected: Any, got: Any) -> Iterator[Detail]:
    if isinstance(expected, list):
        if not isinstance(got, list) or len(got) != len(expected):
            shown = f"{len(got)} entries" if isinstance(got, list) else got
            yield Detail(key, at, f"{len(expected)} entries", shown, math.inf)
        else:
            for i, (e, g) in enumerate(zip(expected, got, strict=True)):
                yield from _places(key, f"{at}[{i}]", e, g)
    elif isinstance(expected, dict) and isinstance(got, dict) and expected.keys() == got.keys():
        for name, e in expected.items():
            yield from _places(key, f"{at}[{name}]", e, got[name])
    elif isinstance(expected, int | float) and isinstance(got, int | float):
        yield Detail(key, at, expected, got, _error(float(expected), float(got)))
    else:
        yield Detail(key, at, expected, got, 0.0 if expected == got else math.inf)


def _error(expected: float, got: float) -> float:
    if expected == got or (math.isnan(expected) and math.isnan(got)):
        return 0.0
    error = abs(expected - got) / max(abs(expected), 1e-3)
    return error if math.isfinite(error) else math.inf
