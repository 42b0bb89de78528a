"""The charts of a comparison: what training looked like over all seeds, and what accuracy costs in length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policyopt.comparing.measures import curve
from policyopt.comparing.results import Comparison, Line
from policyopt.training.charts import Chart, Series, number
from policyopt.training.logging import RunRecord
from policyopt.training.plans import PLANS, Colour, Format, Plan, Style

POINTS = 25
"""A metric of every step is drawn as means of neighbouring steps, about so many points."""
PLACES = 60
"""At so many places curves are read that stand over tokens or seconds."""
PALETTE: tuple[Colour, ...] = ("grey", "main", "second", "green", "violet", "teal", "pink", "olive")
"""The colours of the contenders; the first, what all are compared to, is grey. Where there are more of them than colours, they
come again as dashes."""

UNITS = {"steps": ("step", None), "tokens": ("tokens drawn", "tokens"), "seconds": ("seconds of training", "time/step")}
"""What curves may stand over: title of the axis, and the metric of the log whose sum it is."""
DURING = ("reward", "length", "entropy", "kl", "signal", "grad")
"""The charts of a report, by id, whose first metric is compared."""

HELD_OUT = "accuracy"
FRONT = "front"


@dataclass(frozen=True)
class Curve:
    """A metric of one run at increasing places."""

    x: np.ndarray
    y: np.ndarray


def look(i: int) -> tuple[Colour, Style]:
    """Colour and style of the contender in this place."""
    return PALETTE[i % len(PALETTE)], "dash" if i >= len(PALETTE) else "line"


def charts(c: Comparison, unit: str) -> list[Chart]:
    """Held-out accuracy and what a run logs at every step, over ``steps``, ``tokens`` or ``seconds``: the mean over the seeds and its
    95 % interval."""
    plans = {plan.id: plan for _, found in PLANS for plan in found}
    held = replace(
        plans[HELD_OUT],
        title="Held-out accuracy",
        note="Share of right answers to questions that are never trained on, one greedy answer each.",
    )
    plans["reward"] = replace(plans["reward"], note="Mean over the responses of a step, after shaping.")
    made = [_chart(c, held, "eval/accuracy", unit)]
    made += [_chart(c, plans[id], plans[id].curves[0].metric, unit) for id in DURING]
    return [chart for chart in made if chart.series]


def front(c: Comparison) -> Chart | None:
    """Accuracy over the length of the answers, a point for each contender, and the line of those that no other beats in both."""
    accuracy, length = ({x.contender: x for x in c.lines if x.metric == name} for name in ("accuracy", "length"))
    points = {
        name: (length[name], accuracy[name])
        for name in c.contenders
        if name in length and name in accuracy and _known(length[name]) and _known(accuracy[name])
    }
    if len(points) < 2:
        return None
    best = pareto({name: (x.value.mean, y.value.mean) for name, (x, y) in points.items()})
    steps = [points[name] for name in best]
    line = Series(
        "front", [x.value.mean for x, _ in steps], [y.value.mean for _, y in steps], "grey", "faint"
    )  # unnamed in the legend, as all that is faint
    series = [line] + [_point(name, look(c.contenders.index(name))[0], *found) for name, found in points.items()]
    told = f"The line joins those that no other beats in both: {', '.join(best)}."
    note = f"After training, on held-out questions; right answers in few tokens stand at the top left. {told}"
    return Chart(
        FRONT,
        "Accuracy and length",
        note,
        tuple(series),
        "percent",
        x_title="tokens an answer",
        unit="share of right answers",
        zero=False,
        named=True,
    )


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of those points (x, y) than which no other has less x and more y, by growing x."""
    best: list[str] = []
    for name in sorted(points, key=lambda k: (points[k][0], -points[k][1])):
        if not best or points[name][1] > points[best[-1]][1]:
            best.append(name)
    return best


def band(curves: Sequence[Curve], at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean [P] of the curves at these places, each read on the straight lines between its points, and half the width of its interval,

    .. math:: t_{0.975,\,n-1}\; s / \sqrt{n},

    empty where there is one curve.
    """
    from scipy.special import stdtrit  # here, because it is slow to import

    y = np.stack([np.interp(at, curve.x, curve.y) for curve in curves])
    n = len(y)
    if n < 2:
        return y[0], np.array([])
    return y.mean(axis=0), stdtrit(n - 1, 0.975) * y.std(axis=0, ddof=1) / np.sqrt(n)


def _chart(c: Comparison, plan: Plan, metric: str, unit: str) -> Chart:
    title, spent = UNITS[unit]
    found: dict[str, list[Curve]] = {}
    for name in c.contenders:
        runs = (c.runs[name, seed] for seed in c.seeds if (name, seed) in c.runs)
        if curves := [x for run in runs if (x := _curve(run, metric, spent)) is not None]:
            found[name] = curves
    places = _places([x for curves in found.values() for x in curves], spent is not None)
    series = (
        s for i, name in enumerate(c.contenders) if name in found for s in _series(name, i, found[name], places, plan.format)
    )  # fmt: skip
    return Chart(plan.id, plan.title, plan.note, tuple(series), plan.format, x_title=title, unit=plan.unit)


def _series(name: str, i: int, curves: Sequence[Curve], places: np.ndarray, format: Format) -> Iterator[Series]:
    """The curve of a contender, as far as all of its runs go."""
    start, end = max(x.x[0] for x in curves), min(x.x[-1] for x in curves)
    at = places[(places >= start) & (places <= end)]
    if not len(at):
        return
    mean, half = band(curves, at)
    low, high = (mean - half, mean + half) if len(half) else (half, half)
    if format == "percent":  # a share goes no further
        low, high = low.clip(0, 1), high.clip(0, 1)
    elif all((x.y >= 0).all() for x in curves):  # nor does a number that is never below 0
        low = low.clip(0)
    colour, style = look(i)
    yield Series(name, _short(at), _short(mean), colour, style, _short(low), _short(high))


def _curve(run: RunRecord, metric: str, spent: str | None) -> Curve | None:
    """A metric of a run over its steps, or over the sum of what it has ``spent``."""
    steps, values = curve(run, metric)
    if not steps:
        return None
    x, y = np.array(steps), np.array(values)
    if spent is not None:
        rows = [row for row in run.metrics if row.get("step")]
        sums = np.cumsum([number(row.get(spent)) or 0.0 for row in rows])
        x = np.interp(x, [0.0, *(float(row["step"]) for row in rows)], [0.0, *sums])
    k = 1 if metric.startswith("eval/") else -(-len(x) // POINTS)
    parts = [slice(i, i + k) for i in range(0, len(x), k)]
    return Curve(np.array([x[p].mean() for p in parts]), np.array([y[p].mean() for p in parts]))


def _places(curves: Sequence[Curve], spread: bool) -> np.ndarray:
    """Where all curves are read: where they have points, or evenly spread where each has its points elsewhere."""
    if not curves:
        return np.array([])
    every = np.unique(np.concatenate([x.x for x in curves]))
    return np.linspace(every[0], every[-1], PLACES) if spread or len(every) > 2 * PLACES else every


def _point(name: str, colour: Colour, x: Line, y: Line) -> Series:
    ends = [[v] if np.isfinite(v) else [] for v in (y.value.low, y.value.high, x.value.low, x.value.high)]
    return Series(name, [x.value.mean], [y.value.mean], colour, "points", *ends)


def _known(line: Line) -> bool:
    return bool(np.isfinite(line.value.mean))


def _short(x: np.ndarray) -> list[float]:
    """Numbers with the digits that a picture shows."""
    return [float(f"{v:.4g}") for v in x]
