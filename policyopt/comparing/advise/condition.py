"""Conditions on the course of a metric: what is read off it, and the limit that it is held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policyopt.comparing.measures import LAST, curve
from policyopt.training.logging import RunRecord

FIRST = 10
"""Of so many parts of a run, the first one is its start: much can happen in the first quarter."""
COURSE = 8
"""A run of fewer steps has levels, but no course that would be more than chance."""
ADDED = {"clip_fraction": ("clip_fraction/low", "clip_fraction/high")}
"""Numbers that are sums of metrics."""

Values = Sequence[float]


def start(values: Values) -> float:
    """The mean of the first tenth, at least of one value."""
    return float(np.mean(values[: max(1, len(values) // FIRST)]))


def end(values: Values) -> float:
    """The mean of the last quarter, at least of one value."""
    return float(np.mean(values[len(values) - max(1, len(values) // LAST) :]))


def best(values: Values) -> float:
    """The largest mean of a quarter of the values in a row."""
    width = max(1, len(values) // LAST)
    return max(float(np.mean(values[i : i + width])) for i in range(len(values) - width + 1))


def _times(values: Values) -> float:
    return end(values) / start(values) if start(values) else math.nan


def _peak(values: Values) -> float:
    middle = float(np.median(values))
    return max(values) / middle if middle else math.nan


@dataclass(frozen=True)
class Measure:
    """A number that says something of the course of a metric."""

    of: Callable[[Values], float]
    above: str
    """What a metric does whose condition has the limit ``{x}`` and holds."""
    below: str
    told: str = "{start} -> {end}"
    """What was read: the ``{start}``, the ``{end}`` and the ``{best}``, and the measure itself, ``{value}``."""
    unit: Callable[[Values], float] = start
    """What of another metric (``per``) it is counted in."""
    course: bool = True
    """Whether it takes at least two values, and a run of :data:`COURSE` steps."""


MEASURES: Mapping[str, Measure] = {
    "level": Measure(end, "ends above {x}", "ends below {x}", course=False),
    "rise": Measure(lambda y: end(y) - start(y), "rises by more than {x}", "rises by less than {x}"),
    "fall": Measure(lambda y: start(y) - end(y), "falls by more than {x}", "falls by less than {x}"),
    "times": Measure(_times, "ends above {x} times its start", "ends below {x} times its start"),
    "drop": Measure(
        lambda y: best(y) - end(y), "ends more than {x} below its best", "ends less than {x} below its best",
        "{best} at its best, {end} at the end",
    ),
    "peak": Measure(
        _peak, "of a step is above {x} times the median", "of all steps is below {x} times the median",
        "of one step {value} times the median",
    ),
    "total": Measure(
        math.fsum, "adds up to more than {x}", "adds up to less than {x}", "{value} in all", math.fsum, course=False,
    ),
}  # fmt: skip
"""What conditions can say of a metric. The start is the mean of the first tenth of its values, the end that of the last quarter."""


@dataclass(frozen=True)
class Condition:
    """A measure of a metric above or below a limit.

    Raises ``ValueError`` for an unknown measure, and where there is not exactly one limit.
    """

    metric: str
    """A metric of the log or of the held-out questions; one that ends in ``@`` is the first that begins so."""
    measure: str
    """One of :data:`MEASURES`."""
    above: float | None = None
    below: float | None = None
    per: str | None = None
    """A metric that the limit is counted in."""
    instead: str | None = None
    """A metric to read where the run does not have the first one."""

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise ValueError(f"measure is {self.measure!r}: it is one of {', '.join(MEASURES)}")
        if (self.above is None) == (self.below is None):
            raise ValueError(f"{self.metric}: a condition has a limit above or below")

    @property
    def limit(self) -> float:
        """The limit, on whichever side."""
        return self.below if self.above is None else self.above  # type: ignore[return-value]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metric, and the one in its stead."""
        return tuple(filter(None, (self.metric, self.instead)))

    @property
    def words(self) -> str:
        """What the metric does where it holds."""
        measure = MEASURES[self.measure]
        limit = f"{self.limit:.2g}" + (f" times the `{self.per}`" if self.per else "")
        return (measure.above if self.below is None else measure.below).format(x=limit)

    def __str__(self) -> str:
        """It in Markdown."""
        instead = f" (or `{self.instead}`)" if self.instead else ""
        return f"`{self.metric.replace('@', '@k')}`{instead} {self.words}"

    def read(self, run: RunRecord) -> Reading | None:
        """What a run shows of it; ``None`` where it does not log the metric, or is too short to show a course."""
        measure = MEASURES[self.measure]
        for asked in self.metrics:
            metric, values = course(run, asked)
            if measure.course and (len(values) < 2 or steps(run) < COURSE):
                continue
            if values:
                value = measure.of(values)
                if self.per:
                    _, others = course(run, self.per)
                    unit = measure.unit(others) if others else 0.0
                    value = value / unit if unit else math.nan
                return Reading(self, metric, start(values), end(values), best(values), value)
        return None


@dataclass(frozen=True)
class Reading:
    """What a run shows of a condition."""

    condition: Condition
    metric: str
    """The metric that was read."""
    start: float
    end: float
    best: float
    value: float
    """The measure; NaN where it has none (a quotient by 0)."""

    @property
    def holds(self) -> bool:
        """Whether it lies beyond the limit."""
        c = self.condition
        return self.value < c.limit if c.above is None else self.value > c.limit

    @property
    def told(self) -> str:
        """The numbers, with the name of the metric."""
        per = f" times the {self.condition.per}" if self.condition.per else ""
        numbers = MEASURES[self.condition.measure].told.format(
            start=written(self.start), end=written(self.end), best=written(self.best), value=f"{self.value:.2g}{per}"
        )
        return f"{self.metric} {numbers}"


def course(run: RunRecord, metric: str) -> tuple[str, list[float]]:
    """The name and the values of a metric, step by step; of held-out questions with the evaluations before and after training.

    Of numbers that are sums (:data:`ADDED`) each step has the sum of what it logs of them.
    """
    if metric in ADDED:
        parts = [dict(zip(*curve(run, name), strict=True)) for name in ADDED[metric]]
        at = sorted({step for part in parts for step in part})
        return metric, [sum(part.get(step, 0.0) for part in parts) for step in at]
    if metric.endswith("@"):
        after = run.summary.get("after") or {}
        known = {name for row in run.metrics for name in row} | {f"eval/{name}" for name in after}
        metric = min((name for name in known if name.startswith(metric)), default=metric)
    return metric, curve(run, metric)[1]


def steps(run: RunRecord) -> int:
    """How many steps were made."""
    return sum(1 for row in run.metrics if row.get("step"))


def written(x: float) -> str:
    """A number in three figures, as it stands in a sentence."""
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"
