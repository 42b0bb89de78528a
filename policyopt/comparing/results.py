"""What came of a comparison, as the page, the tables and Python read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policyopt.training.logging import RunRecord
from policyopt.training.plans import Format


@dataclass(frozen=True)
class Measure:
    """One metric of every contender."""

    name: str
    label: str
    """As a table names it."""
    values: Mapping[str, np.ndarray]
    """[S, Q] of each contender: a row for each seed, a column for each held-out question (one column where it is no mean over
    questions); NaN where it was not measured. Seeds and questions are the same for all."""
    higher: bool | None
    """Whether more is better; ``None`` where neither is."""
    format: Format = "number"
    """As the charts of a report have it. What is in ``percent`` and stays between 0 and 1 counts as a share."""


@dataclass(frozen=True)
class Interval:
    """A mean and where it lies with 95 % confidence; the ends are NaN where there is one seed, and all where there is none."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One metric of one contender, and how it differs from the first one."""

    metric: str
    contender: str
    value: Interval
    iqm: float
    """Interquartile mean over the seeds."""
    seeds: tuple[float, ...]
    """The mean of each seed, NaN where there is none."""
    difference: Interval | None
    """Paired by seed and question, to the first contender; ``None`` for the first one."""
    p: float | None
    holm: float | None
    """The p-value of the difference, and the same corrected for the number of contenders (Holm); ``None`` where fewer than
    two seeds have both."""
    improvement: Interval | None
    """Probability that a run of it has more of the metric than a run of the first one; ``None`` where either has fewer than two."""
    detectable: float | None
    """The difference that so many seeds would have seen with a chance of 80 %; ``None`` where that is not known or nothing varies."""
    words: str
    """The difference in words."""


@dataclass(frozen=True)
class Comparison:
    """A grid of runs, finished as far as it is, with its statistics."""

    out: Path
    """Its folder."""
    facts: tuple[tuple[str, str], ...]
    """What was the same for all (task, model, budget, seeds ...), by name, in words."""
    contenders: tuple[str, ...]
    """Their labels; the first is what the others are compared to."""
    seeds: tuple[int, ...]
    runs: Mapping[tuple[str, int], RunRecord]
    """The finished runs by contender and seed."""
    missing: Mapping[tuple[str, int], str]
    """Those that did not finish, and why."""
    measures: tuple[Measure, ...]
    lines: tuple[Line, ...]
    """Of all measures, in their order, and contenders, in theirs."""
    differing: Mapping[str, Mapping[str, str]]
    """By dotted path of the configuration, what each contender has there, where not all have the same."""
