"""What one look at an environment has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policyopt.lens.check.report import Finding, Report


@dataclass(frozen=True)
class Told:
    """The answer to one question."""

    key: str
    name: str
    """What was asked."""
    sentence: str = ""
    """What was found and what to do; empty where all is well."""
    broken: bool = False
    """It has to be mended before a run."""
    value: str = ""
    """What was measured, where all is well."""
    number: float | None = None

    @property
    def finding(self) -> Finding:
        """As a line of a report."""
        value = "broken" if self.broken else "see below" if self.sentence else self.value or "ok"
        return Finding(self.key, self.name, value, self.key, broken=self.broken, number=self.number)


def reported(name: str, told: Sequence[Told], notes: tuple[str, ...] = ()) -> Report:
    """Answers as a report: what has to be mended, and what should be looked at."""
    faults = tuple(f"{name}: {t.sentence}" for t in told if t.broken)
    said = tuple(t.sentence for t in told if t.sentence and not t.broken)
    return Report(name, tuple(t.finding for t in told), faults, (*said, *notes))
