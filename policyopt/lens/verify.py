"""Numeric cases against the library: pass, fail with both numbers, or unsupported with the reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from policyopt.errors import UserError
from policyopt.lens.case import Run
from policyopt.lens.case_files import read_cases, where
from policyopt.lens.given import Malformed, Unsupported
from policyopt.lens.words import words_of
from policyopt.registry import entry, get_method

TOLERANCE = 1e-6
"""Allowed relative error, in float64; numbers below 1e-3 are held to the absolute error of one of that size."""


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
    """Run all cases of a file of the catalogue's schema against what they name: methods, or studies, parts and tools that have words.

    A case passes when every expected key agrees to a relative error of 1e-6 in float64, and fails when a computed one
    does not. It is unsupported when the library has nothing of that name, or no meaning for a column, hyper-parameter or key.
    What a method's cases call things is read from the folder ``words`` (unset: see :func:`~policyopt.lens.words.words_of`).
    Raises :class:`~policyopt.errors.UserError`, naming file, case and field, where the file breaks the schema.
    """
    folder = words_of(Path(path), words)
    return [_verify(str(path), raw, folder) for raw in read_cases(path)]


@torch.no_grad()
def _verify(file: str, raw: Mapping[str, Any], words: Path | None) -> Outcome:
    details: list[Detail] = []
    missing: list[str] = []

    def outcome(status: Literal["pass", "fail", "unsupported"], reason: str = "") -> Outcome:
        return Outcome(file, raw["id"], raw["case"], status, tuple(details), reason)

    try:
        about = entry(raw["id"])
        run = Run(get_method(about.name) if about.kind == "method" else about, raw["what"], raw["given"], words)
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
        raise UserError(f"{where(file, raw['number'], raw)}: {error}") from error
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
