"""A comparison as one HTML file that needs nothing else."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from policyopt import page
from policyopt.comparing.answers import answered, weighed
from policyopt.comparing.curves import HELD_OUT, UNITS, charts, front, look
from policyopt.comparing.results import Comparison, Interval, Line, Measure
from policyopt.comparing.statistics import ALPHA
from policyopt.comparing.tables import JSON, SEEDS, TABLE
from policyopt.training.charts import NBSP, number, written
from policyopt.training.logging import disk_errors
from policyopt.training.plans import Colour, Format

NAME = "compare.html"
MAIN = ("accuracy", "length", "distinct")
"""The metrics that the verdict speaks of, beside pass@k."""
PHASES: tuple[tuple[str, str, Colour], ...] = (
    ("sampling", "time/rollout", "main"),
    ("judging", "time/judge", "fourth"),
    ("scoring", "time/score", "fifth"),
    ("update", "time/update", "second"),
)
"""What a step spends its time on; the rest of it is called so."""


def write_page(c: Comparison) -> Path:
    """Write ``compare.html`` into the folder of the comparison and return its path.

    The page makes no network request and has less than two megabytes. Whatever a model wrote is shown as text and never as markup.
    Raises :class:`~policyopt.errors.UserError` where the disk is full or the folder may not be written.
    """
    path = c.out / NAME
    with disk_errors(path):
        return page.write_page(path, render(c))


def render(c: Comparison) -> str:
    """The page as text."""
    views = {unit: charts(c, unit) for unit in UNITS}
    shape = front(c)
    pictures = weighed(c)
    return page.render_page(
        "compare.html.j2",
        "".join(page.template_text(name) for name in ("chart.js", "tokens.js", "compare.js")),
        title=_title(c),
        first=c.contenders[0],
        verdicts=list(verdicts(c)),
        facts=c.facts,
        missing=_missing(c),
        names=[(name, *look(i)) for i, name in enumerate(c.contenders)],
        matrix=[_across(c, m) for m in c.measures],
        metrics=[_metric(c, m) for m in c.measures],
        one_seed=len(c.seeds) < 2,
        charts=views["steps"],
        held_out=HELD_OUT,
        units=[*UNITS],
        front=shape,
        costs=bars(costs(c)),
        phases=[(name, colour) for name, _, colour in PHASES],
        questions=answered(c),
        differing=_differing(c),
        pictures=pictures,
        runs=_runs(c),
        seeds=c.seeds,
        files=(TABLE, SEEDS, JSON),
        data={
            "views": {unit: [asdict(chart) for chart in found] for unit, found in views.items()},
            "front": asdict(shape) if shape else None,
            "pictures": [[{k: r[k] for k in ("pieces", "weights")} for r in s["responses"]] for s in pictures],
        },
    )


# In words ------------------------------------------------------------------------------------------------------------


def verdicts(c: Comparison) -> Iterator[tuple[str, str]]:
    """(metric, what was found) for each main metric: who differs from the first contender, and what could not be told."""
    for m in c.measures:
        if m.name not in MAIN and not m.name.startswith("pass@"):
            continue
        base, *others = _lines(c, m)
        has = [f"{base.contender} has {_plain(base.value.mean, m.format)}"] if _finite(base.value.mean) else []
        seen = [x for x in others if _seen(x)]
        rest = [x for x in others if not _seen(x)]
        if told := "; ".join([*has, *_told(seen), *_unseen(rest, m)]):
            yield m.label[0].upper() + m.label[1:], f"{told}."


def _unseen(rest: Sequence[Line], m: Measure) -> Iterator[str]:
    """Those of which no difference is known, together where there are many of them."""
    could = [x for x in rest if x.detectable is not None and _finite(x.detectable)]
    if len(could) > 2:
        low, high = (_size(f(x.detectable or 0 for x in could), m.format) for f in (min, max))
        range = high if low == high else f"{low.split(NBSP)[0]} to {high}"
        yield f"no difference seen for {_list([x.contender for x in could])} ({range} could have been seen)"
        rest = [x for x in rest if x not in could]
    yield from _told(rest)


def _told(lines: Sequence[Line]) -> Iterator[str]:
    """What is said of contenders, once where it is the same of several."""
    for words in dict.fromkeys(x.words for x in lines):
        yield f"{_list([x.contender for x in lines if x.words == words])}: {words}"


def _title(c: Comparison) -> str:
    first, *others = c.contenders
    if not others:
        return first
    return f"{_list(others)} against {first}" if len(others) < 4 else f"{len(others)} contenders against {first}"


def _list(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _missing(c: Comparison) -> list[str]:
    """The runs that are not there, those with one reason together."""
    found: dict[tuple[str, str], list[int]] = {}
    for (name, seed), why in c.missing.items():
        found.setdefault((name, why), []).append(seed)
    return [
        f"{name}, {'seed' if len(seeds) == 1 else 'seeds'} {_list([str(s) for s in seeds])}: {why}"
        for (name, why), seeds in found.items()
    ]


# The table -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Track:
    """An interval as a picture: its ends and its middle in percent of the width."""

    low: float
    middle: float
    high: float


def _across(c: Comparison, m: Measure) -> dict[str, Any]:
    """A row of the overview: a metric, and what each contender has of it."""
    cells = []
    for line in _lines(c, m):
        change = signed(line.difference.mean, m.format) if line.difference and _finite(line.difference.mean) else ""
        cells.append({"value": _plain(line.value.mean, m.format), "change": change, "side": _side(line, m)})
    return {"label": m.label, "aim": _aim(m), "cells": cells}


def _metric(c: Comparison, m: Measure) -> dict[str, Any]:
    """A metric in full."""
    lines = _lines(c, m)
    ends = [v for x in lines for v in (x.value.low, x.value.mean, x.value.high) if _finite(v)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 0.0)
    wide = high - low or 1.0

    def track(line: Line) -> _Track | None:
        v = line.value
        if not _finite(v.mean):
            return None
        ends = [x if _finite(x) else v.mean for x in (v.low, v.mean, v.high)]
        return _Track(*(100 * (x - low) / wide for x in ends))

    def row(line: Line) -> dict[str, Any]:
        more = line.improvement
        return {
            "name": line.contender,
            "track": track(line),
            "value": _about(line.value, m.format),
            "difference": _about(line.difference, m.format, signed),
            "holm": _p(line.holm),
            "p": _p(line.p),
            "improvement": _about(more, "percent", _whole),
            "iqm": _plain(line.iqm, m.format),
            "words": line.words,
            "side": _side(line, m),
        }

    first = track(lines[0])
    return {
        "name": m.name,
        "label": m.label,
        "aim": _aim(m),
        "rows": [row(line) for line in lines],
        "at": first.middle if first else None,
        "known": any(x.holm is not None and _finite(x.holm) for x in lines),
        "found": [(x.contender, signed(x.difference.mean, m.format)) for x in lines if x.difference and _seen(x)],
    }


def _lines(c: Comparison, m: Measure) -> list[Line]:
    return [line for line in c.lines if line.metric == m.name]


def _seen(line: Line) -> bool:
    return line.holm is not None and line.holm < ALPHA


def _side(line: Line, m: Measure) -> str:
    """``better``, ``worse`` or, where more is neither, ``other``; empty where no difference is seen."""
    if not _seen(line) or line.difference is None:
        return ""
    return "other" if m.higher is None else "better" if (line.difference.mean > 0) == m.higher else "worse"


def _aim(m: Measure) -> str:
    return "" if m.higher is None else "more is better" if m.higher else "less is better"


def _about(x: Interval | None, format: Format, told: Callable[[float, Format], str] | None = None) -> str:
    """A mean and its interval: ``"95.1 % (93.2 to 96.9)"``."""
    told = told or _plain
    if x is None or not _finite(x.mean):
        return ""
    if not _finite(x.low) or not _finite(x.high):
        return told(x.mean, format)
    low, high = (told(v, format).split(NBSP)[0] for v in (x.low, x.high))
    return f"{told(x.mean, format)} ({low} to {high})"


def _plain(x: float, format: Format) -> str:
    return written(x if _finite(x) else None, format).replace("-", "−")


def _whole(x: float, format: Format) -> str:
    """A share in whole percent."""
    return f"{100 * x:.0f}{NBSP}%"


def signed(x: float, format: Format) -> str:
    """A change: ``"+2.1 points"``, ``"−0.4 s"``."""
    size = _size(x, format)
    return size if size.split(NBSP)[0].strip("0.,") == "" else f"{'+' if x > 0 else '−'}{size}"


def _size(x: float, format: Format) -> str:
    """How large a change is, without its sign; that of a share in points."""
    if format == "percent":
        return f"{100 * abs(x):.1f}{NBSP}points"
    return written(abs(x), format)


def _p(p: float | None) -> str:
    if p is None or not _finite(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _finite(x: float) -> bool:
    return math.isfinite(x)


# What it costs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What a step of a contender takes, on average over all steps of its runs."""

    name: str
    seconds: float
    tokens: float
    phases: tuple[tuple[str, Colour, float], ...]
    """(phase, its colour, its seconds)"""

    @property
    def thousand(self) -> float:
        """Seconds of a thousand tokens."""
        return 1000 * self.seconds / self.tokens if self.tokens else 0.0

    @property
    def rest(self) -> float:
        """Seconds that are in no phase."""
        return max(0.0, self.seconds - sum(t for _, _, t in self.phases))

    @property
    def shares(self) -> list[tuple[str, str]]:
        """What share of the time each phase takes."""
        return [(name, f"{100 * t / self.seconds:.0f}{NBSP}%") for name, _, t in self.phases if self.seconds]


def costs(c: Comparison) -> list[Cost]:
    """The costs of each contender that has logged its time."""
    found = []
    for name in c.contenders:
        runs = [run for seed in c.seeds if (run := c.runs.get((name, seed)))]
        rows = [
            row for run in runs for row in run.metrics if row.get("step") and number(row.get("time/step")) is not None
        ]
        if rows:
            phases = tuple((phase, colour, _mean(rows, key)) for phase, key, colour in PHASES)
            found.append(Cost(name, _mean(rows, "time/step"), _mean(rows, "tokens"), phases))
    return found


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(number(row.get(key)) or 0.0 for row in rows) / len(rows)


def bars(found: Sequence[Cost]) -> dict[str, list[tuple[Cost, float, str]]]:
    """By what they measure, the bars: whose it is, its width in percent of the longest, and its number."""
    kinds: dict[str, tuple[Callable[[Cost], float], Format]] = {
        "seconds": (lambda x: x.seconds, "seconds"),
        "tokens": (lambda x: x.tokens, "integer"),
        "thousand": (lambda x: x.thousand, "seconds"),
    }
    most = {kind: max(map(of, found), default=0.0) or 1.0 for kind, (of, _) in kinds.items()}
    return {
        kind: [(x, 100 * of(x) / most[kind], written(of(x), form)) for x in found] for kind, (of, form) in kinds.items()
    }


# Beside --------------------------------------------------------------------------------------------------------------


def _differing(c: Comparison) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """By path, (contender, what it has, whether that is not what the first has)."""
    first = c.contenders[0]
    return [
        (path, [(name, row.get(name, ""), row.get(name, "") != row.get(first, "")) for name in c.contenders])
        for path, row in c.differing.items()
    ]


def _runs(c: Comparison) -> list[tuple[str, list[tuple[int, str, str]]]]:
    """By contender, (seed, held-out accuracy at the end, address of the run's report)."""
    return [(name, [(seed, *_run(c, name, seed)) for seed in c.seeds]) for name in c.contenders]


def _run(c: Comparison, name: str, seed: int) -> tuple[str, str]:
    run = c.runs.get((name, seed))
    if run is None:
        return "–", ""
    after = run.summary.get("after")
    report = run.folder / "report.html"
    address = quote(os.path.relpath(report, c.out).replace(os.sep, "/")) if report.is_file() else ""
    return written(number(after.get("accuracy")) if isinstance(after, dict) else None, "percent"), address
