"""What is measured of the runs of a grid: one table of numbers for each metric, by contender, seed and question."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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


def measures(
    runs: Runs, contenders: Sequence[str], seeds: Sequence[int], target: float | None = None
) -> tuple[Measure, ...]:
    """All that a comparison shows; a metric that no run has is left out."""
    found = [
        questions("accuracy", "accuracy", "correct", True, "percent", runs, contenders, seeds),
        *passed(runs, contenders, seeds),
        questions("distinct", "different right answers", "answers", True, "number", runs, contenders, seeds),
        single(
            "exploitability",
            "exploitability",
            lambda run: _after(run, "exploitability"),
            False,
            "number",
            runs,
            contenders,
            seeds,
        ),
        questions("length", "length", "lengths", None, "number", runs, contenders, seeds),
        single("best", "best accuracy", best, True, "percent", runs, contenders, seeds),
        single("drop", "fall from the best", drop, False, "percent", runs, contenders, seeds),
        *(logged(name, runs, contenders, seeds) for name in LOGGED),
        *costs(runs, contenders, seeds, target),
    ]
    return tuple(m for m in found if _known(m))


def measure(name: str, runs: Runs, contenders: Sequence[str], seeds: Sequence[int]) -> Measure | None:
    """One metric by name: one that every comparison shows, or any of the log. ``None`` where no run has it."""
    found = {m.name: m for m in measures(runs, contenders, seeds)}
    if name in found:
        return found[name]
    other = logged(name, runs, contenders, seeds)
    return other if _known(other) else None


def _known(m: Measure) -> bool:
    return any(np.isfinite(v).any() for v in m.values.values())


# By question ---------------------------------------------------------------------------------------------------------


def questions(
    name: str, label: str, key: str, higher: bool | None, format: Format, runs: Runs, contenders: Sequence[str], seeds: Sequence[int],
) -> Measure:  # fmt: skip
    """What the last evaluation found of every question: [S, Q]; where it keeps only the mean (``name``), [S, 1]."""
    return _measure(
        name, label, lambda run: _list(run, key) or [_after(run, name)], higher, format, runs, contenders, seeds
    )


def passed(runs: Runs, contenders: Sequence[str], seeds: Sequence[int]) -> Iterable[Measure]:
    """pass@k of every question, from how many of its samples were right."""
    from policyopt.training.evaluate import pass_at_k  # brings torch, which nothing else here needs

    names = sorted({k for run in runs.values() for k in run.summary.get("after") or {} if k.startswith("pass@")})
    for name in names:
        k = int(name.removeprefix("pass@"))

        def each(run: RunRecord, k: int = k, name: str = name) -> list[float]:
            samples = ((run.config.get("eval") or {}).get("samples")) or 0
            right = _list(run, "right")
            return [pass_at_k(samples, int(c), k) if np.isfinite(c) else np.nan for c in right] or [_after(run, name)]

        yield _measure(name, name, each, True, "percent", runs, contenders, seeds)


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


def logged(name: str, runs: Runs, contenders: Sequence[str], seeds: Sequence[int]) -> Measure:
    """A metric of the log: its mean over the last quarter of the steps."""
    plain: tuple[str, bool | None, Format] = (name, None, "number")
    label, higher, format = LOGGED.get(name, plain)
    return single(name, label, lambda run: late(run, name), higher, format, runs, contenders, seeds)


def late(run: RunRecord, name: str) -> float:
    """The mean of a metric over the last quarter of the steps; NaN where it is not logged."""
    rows = [row for row in run.metrics if row.get("step")]
    found = [number(row.get(name)) for row in rows]
    values = [x for x in found[len(rows) - max(1, len(rows) // LAST) :] if x is not None] or [
        x for x in found if x is not None
    ][-1:]
    return float(np.mean(values)) if values else np.nan


def costs(runs: Runs, contenders: Sequence[str], seeds: Sequence[int], target: float | None) -> Iterable[Measure]:
    """Tokens and seconds of training: in all, for a step, and until held-out accuracy first reached a target."""
    grid = (runs, contenders, seeds)
    yield single("tokens", "tokens drawn", lambda run: _float(run.summary.get("tokens")), None, "integer", *grid)
    yield single(
        "seconds", "seconds of training", lambda run: _float(run.summary.get("seconds")), None, "seconds", *grid
    )
    yield single("tokens/step", "tokens a step", lambda run: _ratio(run, "tokens"), None, "integer", *grid)
    yield single("seconds/step", "seconds a step", lambda run: _ratio(run, "seconds"), None, "number", *grid)
    if (goal := aim(runs, contenders[0], seeds) if target is None else target) is not None:
        to = f"to {100 * goal:.0f} % accuracy"
        yield single(
            "tokens to target", f"tokens {to}", lambda run: reached(run, goal, "tokens"), False, "integer", *grid
        )
        yield single(
            "seconds to target", f"seconds {to}", lambda run: reached(run, goal, "time/step"), False, "seconds", *grid
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


def single(
    name: str, label: str, of: Callable[[RunRecord], float], higher: bool | None, format: Format, runs: Runs, contenders: Sequence[str],
    seeds: Sequence[int],
) -> Measure:  # fmt: skip
    """One number for each run: [S, 1]."""
    return _measure(name, label, lambda run: [of(run)], higher, format, runs, contenders, seeds)


def _measure(
    name: str, label: str, of: Callable[[RunRecord], list[float]], higher: bool | None, format: Format, runs: Runs,
    contenders: Sequence[str], seeds: Sequence[int],
) -> Measure:  # fmt: skip
    found = {key: of(run) for key, run in runs.items()}
    width = max((len(x) for x in found.values()), default=1)
    blank = [np.nan] * width
    rows = {key: x if len(x) == width else blank for key, x in found.items()}
    values = {c: np.array([rows.get((c, seed), blank) for seed in seeds], dtype=float) for c in contenders}
    return Measure(name, label, values, higher, format)


def _ratio(run: RunRecord, key: str) -> float:
    return _float(run.summary.get(key)) / max(1.0, _float(run.summary.get("steps")))


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
