"""What a check found: plain data, rendered in :mod:`policyopt.lens.check.render`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One measured property."""

    key: str
    """Short name, the column of a table."""
    name: str
    """What was measured."""
    value: str
    """The result in a word or two; "n/a" where the question has no meaning for the recipe."""
    short: str
    """The result in a few characters."""
    number: float | None = None
    """The measured number behind it, where there is one: a deviation, a slope, a factor."""
    note: str = ""
    """What the number is, or why there is none."""
    broken: bool = False
    """The recipe must not be used as it is."""


def not_applicable(key: str, name: str, reason: str) -> Finding:
    """A property that means nothing for this recipe, and why."""
    return Finding(key, name, "n/a", "-", note=reason)


@dataclass(frozen=True)
class Report:
    """Everything that was measured on one recipe or part."""

    name: str
    """The method, or the class of the part."""
    findings: tuple[Finding, ...] = ()
    faults: tuple[str, ...] = ()
    """What is wrong, in sentences that begin with the class of the part."""
    notes: tuple[str, ...] = ()
    """What to know when reading the findings."""

    @property
    def broken(self) -> bool:
        """Something must be mended."""
        return bool(self.faults) or any(f.broken for f in self.findings)

    def __getitem__(self, key: str) -> Finding:
        """The finding of that key. Raises ``KeyError``."""
        return {f.key: f for f in self.findings}[key]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is not finite becomes ``None``."""
        data = {**asdict(self), "broken": self.broken}
        for finding in data["findings"]:
            number = finding["number"]
            finding["number"] = number if number is not None and math.isfinite(number) else None
        return data
