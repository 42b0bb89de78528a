"""Which charts a run's metrics make: plain data that the report's page draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from policyopt.training.intervals import wilson
from policyopt.training.logging import RunRecord
from policyopt.training.plans import ANSWERS, EACH, PHASES, PLANS, SPEED, Colour, Curve, Format, Plan, Style

MAX_POINTS = 400
"""A longer series is drawn as means of neighbouring steps."""
MAX_BARS = 120
MAX_BINS = 40
MAX_OTHER = 24
NBSP = "\u00a0"
SMOOTH_FROM = 40
"""From so many steps on, the noisy series of a batch are drawn with their moving mean."""


@dataclass(frozen=True)
class Series:
    """One named curve or set of bars: ``x`` and ``y`` of equal length, all finite.

    Where a point is uncertain, ``low`` and ``high`` are the ends of its interval along ``y``, and ``left`` and ``right`` those
    along ``x``: as long as ``y``, or empty. About a curve they are drawn as a band, about points as bars.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: Colour = "main"
    style: Style = "line"
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    left: Sequence[float] = ()
    right: Sequence[float] = ()


@dataclass(frozen=True)
class Chart:
    """One chart: what it shows in a sentence, and its series."""

    id: str
    title: str
    note: str
    series: tuple[Series, ...]
    format: Format = "number"
    x_title: str = "step"
    unit: str = ""
    """What the vertical axis counts."""
    log: bool = False
    zero: bool = True
    """Whether the axes begin at 0; else where the data do."""
    named: bool = False
    """Whether the name of a series stands beside its last point."""

    @property
    def change(self) -> str:
        """The first and the last value of the first series, for the head of the chart."""
        if not self.series or self.series[0].style in ("stack", "overlay"):
            return ""
        y = self.series[0].y
        return (
            f"{written(y[0], self.format)} → {written(y[-1], self.format)}"
            if len(y) > 1
            else written(y[0], self.format)
        )

    @property
    def label(self) -> str:
        """The chart in words, for those who cannot see it."""
        return f"Chart: {self.title}. " + " ".join(self._words(s) for s in self.series if s.style != "faint")

    def _words(self, s: Series) -> str:
        low, high = min(s.y), max(s.y)
        told = f"{s.name}: from {written(low, self.format)} to {written(high, self.format)}"
        first, last = written(s.y[0], self.format), written(s.y[-1], self.format)
        if s.style in ("stack", "overlay"):
            return told + "."
        return f"{told}, {first} at {self.x_title} {s.x[0]:g}, {last} at {s.x[-1]:g}."


def sections(run: RunRecord) -> list[tuple[str, list[Chart]]]:
    """The charts that the run has data for, under their headings; metrics that no chart knows come last."""
    rows, asked = _with_ends(run), max(judged(measured(run, phase)) for phase in ("before", "after"))
    found = [(title, [c for plan in plans if (c := _chart(plan, rows, asked))]) for title, plans in PLANS]
    lengths = length_chart(run)
    if lengths is not None:
        next(charts for title, charts in found if title == ANSWERS).insert(1, lengths)
    for start, title, note in EACH:
        names = sorted({name for row in run.metrics for name in row if name.startswith(start)})
        plans = [
            Plan(f"{start}{i}", name.removeprefix(start), note, (Curve("value", name),)) for i, name in enumerate(names)
        ]
        found.append((title, [c for plan in plans if (c := _chart(plan, run.metrics))]))
    speed = [_time_chart(run.metrics), _chart(SPEED, run.metrics)]
    found.append(("Where does the time go?", [c for c in speed if c is not None]))
    return [(title, charts) for title, charts in found if charts]


def other_charts(run: RunRecord) -> list[Chart]:
    """A chart for every metric that changes and that the report has no plan for, such as a user's own."""
    known = {c.metric for _, plans in PLANS for plan in plans for c in plan.curves}
    known |= {metric for _, metric, _ in PHASES} | {c.metric for c in SPEED.curves} | {"step", "time/step"}
    apart = ("eval/pass@", "eval/distinct", "eval/exploitability", *(start for start, _, _ in EACH))
    names = {name: None for row in run.metrics for name in row}
    plans = (
        Plan(f"other-{i}", name, "", (Curve(name, name),))
        for i, name in enumerate(n for n in names if n not in known and not n.startswith(apart))
    )
    found = (c for plan in plans if (c := _chart(plan, run.metrics)))
    return [c for c in found if min(c.series[0].y) < max(c.series[0].y)][:MAX_OTHER]


def length_chart(run: RunRecord) -> Chart | None:
    """Histogram of response lengths before and after training, in shares, so that unequal numbers compare."""
    lengths = {phase: held_lengths(run, phase) for phase in ("before", "after")}
    every = [*lengths["before"], *lengths["after"]]
    if not every:
        return None
    low, high = math.floor(min(every)), math.ceil(max(every))
    width = max(1, math.ceil((high - low + 1) / MAX_BINS))
    edges = np.arange(low, high + width + 1, width)
    colours: dict[str, Colour] = {"before": "grey", "after": "main"}
    series = []
    for phase, values in lengths.items():
        if values:
            counts, _ = np.histogram(values, edges)
            # Tokens are whole numbers: the bin from 10 to 13 holds 10, 11 and 12, so its middle is 11.
            x = [float(e) + (width - 1) / 2 for e in edges[:-1]]
            series.append(Series(phase, x, [float(c) for c in counts / len(values)], colours[phase], "overlay"))
    told = ", ".join(f"{np.mean(v):.1f} {phase}" for phase, v in lengths.items() if v)
    bins = f" Bars of {width} tokens." if width > 1 else ""
    note = f"Share of held-out responses by number of tokens; on average {told}.{bins}"
    return Chart(
        "lengths",
        "Lengths before and after",
        note,
        tuple(series),
        "percent",
        x_title="tokens",
        unit="share of responses",
    )


def held_lengths(run: RunRecord, phase: str) -> list[float]:
    """Lengths of the held-out responses ``"before"`` or ``"after"`` training, from the summary or else the samples."""
    values = measured(run, phase).get("lengths")
    if not isinstance(values, list):
        values = [s.get("length") for s in run.samples if s.get("phase") == phase]
    return [float(v) for v in values if number(v) is not None]


def measured(run: RunRecord, phase: str) -> Mapping[str, Any]:
    """The evaluation ``"before"`` or ``"after"`` training, empty where the run has none."""
    found = run.summary.get(phase)
    return found if isinstance(found, dict) else {}


def judged(found: Mapping[str, Any]) -> int:
    """On how many responses the accuracy of an evaluation was measured."""
    return int(number(found.get("judged", found.get("n"))) or 0)


def last_step(run: RunRecord) -> float:
    """How many steps a run has trained: what its summary says, or else the last one that it logged."""
    told = number(run.summary.get("steps"))
    return (
        max((s for row in run.metrics if (s := number(row.get("step"))) is not None), default=0.0)
        if told is None
        else told
    )


def number(x: Any) -> float | None:
    """``x`` as a finite number, or None."""
    return float(x) if isinstance(x, int | float) and math.isfinite(x) else None


def written(x: float | None, form: Format = "number") -> str:
    """A number as people read it: ``"86.3 %"`` (with a space that does not break), ``"0.0123"``, ``"5,430"``."""
    if x is None:
        return "–"
    if form == "percent":
        return f"{100 * x:{'.2g' if 0 < abs(x) < 0.01 else '.1f'}}{NBSP}%"
    if form == "seconds":
        return f"{x:.2f}{NBSP}s"
    if form == "integer" or abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:.3g}" if abs(x) >= 1e-3 or x == 0 else f"{x:.1e}"


def _with_ends(run: RunRecord) -> list[Mapping[str, Any]]:
    """The metrics with the evaluations before and after training at either end."""
    rows: list[Mapping[str, Any]] = list(run.metrics)
    for phase, step in (("before", 0.0), ("after", last_step(run))):
        ends = {f"eval/{k}": v for k, v in measured(run, phase).items() if number(v) is not None and k != "n"}
        seen = {k for row in rows if row.get("step") == step for k in row if row[k] is not None}
        row = {"step": step} | {k: v for k, v in ends.items() if k not in seen}
        rows = [row, *rows] if phase == "before" else [*rows, row]
    return rows


def _chart(plan: Plan, rows: Sequence[Mapping[str, Any]], asked: int = 0) -> Chart | None:
    """The chart of a plan; shares are those of so many questions as were ``asked``."""
    series: list[Series] = []
    for curve in plan.curves:
        for name, metric in _named(curve, rows):
            points = list(_points(rows, metric))
            if points:
                x, y = zip(*points, strict=True)
                s = Series(name, x, [curve.sign * v for v in y], curve.colour, curve.style)
                if curve.share and asked:
                    low, high = zip(*(wilson(v, asked) for v in y), strict=True)
                    s = replace(s, low=low, high=high)
                series += _smoothed(s) if plan.smooth and s.style == "line" else [_thinned(s, MAX_POINTS)]
    if not series:
        return None
    # A logarithmic axis has no place for 0.
    log = plan.log and all(v > 0 for s in series for v in s.y)
    return Chart(plan.id, plan.title, plan.note, tuple(series), plan.format, unit=plan.unit, log=log)


def _named(curve: Curve, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    if not curve.metric.endswith("@"):
        yield curve.name, curve.metric
        return
    for metric in sorted({k for row in rows for k in row if k.startswith(curve.metric)}):
        yield curve.name + metric.removeprefix(curve.metric), metric


def _points(rows: Sequence[Mapping[str, Any]], metric: str) -> Iterator[tuple[float, float]]:
    for row in rows:
        step, value = number(row.get("step")), number(row.get(metric))
        if step is not None and value is not None:
            yield step, value


def _smoothed(s: Series) -> list[Series]:
    if len(s.y) < SMOOTH_FROM:
        return [s]
    k = min(50, max(5, len(s.y) // 25))
    total = np.concatenate([[0.0], np.cumsum(s.y)])
    end = np.arange(1, len(s.y) + 1)
    start = np.maximum(0, end - k)
    mean = (total[end] - total[start]) / (end - start)
    line = replace(s, name=f"{s.name}, mean of {k} steps", y=[float(v) for v in mean])
    return [_thinned(line, MAX_POINTS), _thinned(replace(s, name=f"{s.name}, each step", style="faint"), MAX_POINTS)]


def _thinned(s: Series, most: int) -> Series:
    if len(s.y) <= most:
        return s
    parts = np.array_split(np.arange(len(s.y)), most)

    def mean(v: Sequence[float]) -> list[float]:
        return [float(np.asarray(v)[p].mean()) for p in parts] if len(v) else []

    return replace(
        s, x=mean(s.x), y=mean(s.y), low=mean(s.low), high=mean(s.high), left=mean(s.left), right=mean(s.right)
    )


def _time_chart(rows: Sequence[Mapping[str, Any]]) -> Chart | None:
    timed = [row for row in rows if any(number(row.get(metric)) is not None for _, metric, _ in PHASES)]
    if not timed:
        return None
    steps = [number(row.get("step")) or 0.0 for row in timed]
    series = [
        Series(name, steps, [number(row.get(metric)) or 0.0 for row in timed], colour, "stack")
        for name, metric, colour in PHASES
    ]
    series = [s for s in series if any(s.y)]
    spent = {s.name: sum(s.y) for s in series}
    whole = sum(spent.values())
    told = ", ".join(f"{name} {100 * t / whole:.0f}{NBSP}%" for name, t in spent.items()) if whole else ""
    note = f"Seconds of each step. Of the whole: {told}." if told else "Seconds of each step."
    return Chart(
        "time", "Seconds per step", note, tuple(_thinned(s, MAX_BARS) for s in series), "seconds", unit="seconds"
    )
