"""What is measured of the runs of a grid: one table of numbers for each metric, by contender, seed and question."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policyopt.comparing.results import Measure
from policyopt.training.charts import number
from policyopt.training.console import duration
from policyopt.training.logging import RunRecord
from policyopt.training.plans import Format

Runs = Mapping[tuple[str, int], RunRecord]
LAST = 4
"""Of so many parts of a run, the last one counts for what is logged at every step."""
WAY = 0.8
"""How much of the way from the start to the first contender's end the target is."""

LOGGED: Mapping[str, tuple[str, bool | None, Format]] = {
    "reward/mean": ("reward in training", True, "number"),
    "entropy": ("entropy", None, "number"),
    "kl/ref": ("KL to the reference", None, "number"),
    "signal/groups": ("groups with a signal", None, "percent"),
    "length/truncated": ("truncated in training", None, "percent"),
}
"""Metrics of the log that every comparison shows: label, whether more is better, format."""


@dataclass(frozen=True)
class Metric:
    """How a metric is read from a run: one number, or one for each held-out question."""

    name: str
    label: str
    """As a table names it."""
    of: Callable[[RunRecord], list[float]]
    higher: bool | None = None
    """Whether more is better; ``None`` where neither is."""
    format: Format = "number"

    def measured(self, runs: Runs, contenders: Sequence[str], seeds: Sequence[int]) -> Measure:
        """[S, Q] of each contender; NaN where a run is missing or has another number of questions than the others."""
        found = {key: self.of(run) for key, run in runs.items()}
        width = max((len(x) for x in found.values()), default=1)
        blank = [np.nan] * width
        rows = {key: x if len(x) == width else blank for key, x in found.items()}
        values = {c: np.array([rows.get((c, seed), blank) for seed in seeds], dtype=float) for c in contenders}
        return Measure(self.name, self.label, values, self.higher, self.format)


PAIRS: tuple[tuple[str, str, bool | None, Format], ...] = (
    ("pairs/accuracy", "held-out pairs in order", True, "percent"),
    ("pairs/margin", "margin of held-out pairs", None, "number"),
    ("loglik/chosen", "log-likelihood of held-out chosen texts", True, "number"),
    ("loglik/rejected", "log-likelihood of held-out rejected texts", None, "number"),
)
"""What is measured on held-out pairs: name, label, whether more is better, how it is written."""


def measures(
    runs: Runs, contenders: Sequence[str], seeds: Sequence[int], target: float | None = None
) -> tuple[Measure, ...]:
    """All that a comparison shows; a metric that no run has is left out."""
    goal = aim(runs, contenders[0], seeds) if target is None else target
    found = (metric.measured(runs, contenders, seeds) for metric in metrics(runs, goal))
    return tuple(m for m in found if _known(m))


def measure(name: str, runs: Runs, contenders: Sequence[str], seeds: Sequence[int]) -> Measure | None:
    """One metric by name: one that every comparison shows, or any of the log. ``None`` where no run has it."""
    every = metrics(runs, aim(runs, contenders[0], seeds))
    found = next((m for m in every if m.name == name), logged(name)).measured(runs, contenders, seeds)
    return found if _known(found) else None


def metrics(runs: Runs, goal: float | None) -> Iterator[Metric]:
    """What a comparison of some runs shows, in its order; ``goal`` is the accuracy whose cost is measured, if any."""
    yield questions("accuracy", "accuracy", "correct", True, "percent")
    yield from passed(runs)
    yield questions("distinct", "different right answers", "answers", True)
    yield _once("exploitability", "exploitability", False)
    yield questions("length", "length", "lengths")
    yield from (_once(name, label, higher, kind) for name, label, higher, kind in PAIRS)
    yield Metric("best", "best accuracy", lambda run: [best(run)], True, "percent")
    yield Metric("drop", "fall from the best", lambda run: [drop(run)], False, "percent")
    yield from map(logged, LOGGED)
    yield from costs(goal)


def _known(m: Measure) -> bool:
    return any(np.isfinite(v).any() for v in m.values.values())


# By question ---------------------------------------------------------------------------------------------------------


def questions(name: str, label: str, key: str, higher: bool | None = None, format: Format = "number") -> Metric:
    """What the last evaluation found of every question; where it keeps only the mean (``name``), that."""
    return Metric(name, label, lambda run: _list(run, key) or [_after(run, name)], higher, format)


def _once(name: str, label: str, higher: bool | None, format: Format = "number") -> Metric:
    """One number of the last evaluation."""
    return Metric(name, label, lambda run: [_after(run, name)], higher, format)


def passed(runs: Runs) -> Iterator[Metric]:
    """pass@k of every question, from how many of its samples were right."""
    from policyopt.training.evaluate import pass_at_k  # brings torch, which nothing else here needs

    names = sorted({k for run in runs.values() for k in run.summary.get("after") or {} if k.startswith("pass@")})
    for name in names:
        k = int(name.removeprefix("pass@"))

        def each(run: RunRecord, k: int = k, name: str = name) -> list[float]:
            samples = ((run.config.get("eval") or {}).get("samples")) or 0
            right = _list(run, "right")
            return [pass_at_k(samples, int(c), k) if np.isfinite(c) else np.nan for c in right] or [_after(run, name)]

        yield Metric(name, name, each, True, "percent")


def _list(run: RunRecord, key: str) -> list[float]:
    found = (run.summary.get("after") or {}).get(key)
    return [np.nan if x is None else float(x) for x in found] if isinstance(found, list) else []


def _after(run: RunRecord, name: str) -> float:
    return _float((run.summary.get("after") or {}).get(name))


# By run --------------------------------------------------------------------------------------------------------------


def curve(run: RunRecord, name: str = "eval/accuracy") -> tuple[list[float], list[float]]:
    """Steps and values of a metric; that of the last evaluation, which no step logs, comes last."""
    found = {int(row["step"]): x for row in run.metrics if (x := number(row.get(name))) is not None}
    last = (
        number((run.summary.get("after") or {}).get(name.removeprefix("eval/"))) if name.startswith("eval/") else None
    )
    if last is not None:
        found[int(run.summary.get("steps") or max(found, default=0))] = last
    return [float(s) for s in sorted(found)], [found[s] for s in sorted(found)]


def best(run: RunRecord) -> float:
    """The best held-out accuracy of all evaluations."""
    return max(curve(run)[1], default=np.nan)


def drop(run: RunRecord) -> float:
    """How far the last evaluation lies below the best: 0 for a run that ended at its best."""
    _, y = curve(run)
    return max(y) - y[-1] if y else np.nan


def logged(name: str) -> Metric:
    """A metric of the log: its mean over the last quarter of the steps."""
    plain: tuple[str, bool | None, Format] = (name, None, "number")
    label, higher, format = LOGGED.get(name, plain)
    return Metric(name, label, lambda run: [late(run, name)], higher, format)


def late(run: RunRecord, name: str) -> float:
    """The mean of a metric over the last quarter of the steps; NaN where it is not logged."""
    rows = [row for row in run.metrics if row.get("step")]
    found = [number(row.get(name)) for row in rows]
    values = [x for x in found[len(rows) - max(1, len(rows) // LAST) :] if x is not None] or [
        x for x in found if x is not None
    ][-1:]
    return float(np.mean(values)) if values else np.nan


def costs(goal: float | None) -> Iterator[Metric]:
    """Tokens and seconds of training: in all, for a step, and until held-out accuracy first reached a goal."""

    def summed(key: str) -> Callable[[RunRecord], list[float]]:
        return lambda run: [_float(run.summary.get(key))]

    def each_step(key: str) -> Callable[[RunRecord], list[float]]:
        return lambda run: [_float(run.summary.get(key)) / max(1.0, _float(run.summary.get("steps")))]

    yield Metric("tokens", "tokens drawn", summed("tokens"), format="integer")
    yield Metric("seconds", "seconds of training", summed("seconds"), format="seconds")
    yield Metric("tokens/step", "tokens a step", each_step("tokens"), format="integer")
    yield Metric("seconds/step", "seconds a step", each_step("seconds"))
    if goal is not None:
        to = f"to {100 * goal:.0f} % accuracy"
        yield Metric("tokens to target", f"tokens {to}", lambda run: [reached(run, goal, "tokens")], False, "integer")
        yield Metric(
            "seconds to target", f"seconds {to}", lambda run: [reached(run, goal, "time/step")], False, "seconds"
        )


def aim(runs: Runs, first: str, seeds: Sequence[int]) -> float | None:
    """The accuracy at four fifths of the way that the first contender makes on average; ``None`` where it gains nothing."""
    curves = [y for seed in seeds if (first, seed) in runs and (y := curve(runs[first, seed])[1])]
    if not curves:
        return None
    start, end = float(np.mean([y[0] for y in curves])), float(np.mean([y[-1] for y in curves]))
    return start + WAY * (end - start) if end > start else None


def reached(run: RunRecord, target: float, key: str) -> float:
    """What was used up (the sum of a metric of the log) when held-out accuracy first reached a target, on the straight line
    between two evaluations; for a run that never did, all that it has used, which is too little."""
    steps, y = curve(run)
    spent, total = {0.0: 0.0}, 0.0
    for row in run.metrics:
        total += number(row.get(key)) or 0.0 if row.get("step") else 0.0
        spent[float(row.get("step") or 0)] = total
    for i, value in enumerate(y):
        if value >= target:
            if i == 0:
                return 0.0
            part = (target - y[i - 1]) / (value - y[i - 1])
            a, b = spent.get(steps[i - 1], 0.0), spent.get(steps[i], total)
            return a + part * (b - a)
    return total


def _float(x: Any) -> float:
    value = number(x)
    return np.nan if value is None else value


def shown(x: float, format: Format, sign: bool = False) -> str:
    """A number as a table shows it; a change of a share in points."""
    if not np.isfinite(x):
        return "-"
    plus = "+" if sign else ""
    if format == "percent":
        return f"{100 * x:{plus}.1f}" + ("" if sign else " %")
    if format == "seconds":
        return f"{x:{plus}.1f} s" if sign else duration(x)
    if format == "integer":
        return f"{x:{plus},.0f}"
    return f"{x:{plus}.3g}"
