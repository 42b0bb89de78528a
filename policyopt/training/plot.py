"""Charts of a run as pictures for a notebook: SVG that needs nothing else and takes the colour of the text around it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from policyopt.errors import UserError
from policyopt.files import write_whole
from policyopt.training.charts import Chart, Series, written

WIDTH, HEIGHT, COLUMNS = 340, 210, 3
"""Size of a chart in pixels, and how many stand side by side."""
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 44, 26
COLOURS = {
    "main": "#4a7de0", "second": "#cf7420", "grey": "#868e96", "fourth": "#7f9fd8", "fifth": "#c39a6b", "green": "#2f9160",
    "violet": "#8a68d0", "teal": "#2490a0", "pink": "#c8529f", "olive": "#8c7a1a",
}  # fmt: skip
"""Readable on white and on black."""


@dataclass(frozen=True)
class Figure:
    """Charts side by side. A notebook shows them; :meth:`save` writes them."""

    charts: tuple[Chart, ...]

    def svg(self) -> str:
        """The picture."""
        columns = min(COLUMNS, len(self.charts))
        width, height = WIDTH * columns, HEIGHT * math.ceil(len(self.charts) / max(1, columns))
        places = ((WIDTH * (i % columns), HEIGHT * (i // columns)) for i in range(len(self.charts)))
        drawn = (f'<g transform="translate({x},{y})">{_chart(c)}</g>' for c, (x, y) in zip(self.charts, places))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" style="max-width:100%;height:auto" font-family="sans-serif" font-size="11" fill="currentColor">'
            f"{''.join(drawn)}</svg>"
        )

    def save(self, path: str | Path) -> Path:
        """Write the picture into a file, whole or not at all, and return where.

        Raises :class:`~policyopt.errors.UserError` where it cannot be written, and for an ending other than ``.svg``.
        """
        path = Path(path)
        if path.suffix != ".svg":
            raise UserError(f"{path}: the picture is SVG: name the file {path.with_suffix('.svg')}")
        try:
            write_whole(path, self.svg())
        except OSError as error:
            raise UserError(f"{path}: it cannot be written ({error.strerror or error})") from error
        return path

    def __repr__(self) -> str:
        return f"Figure({', '.join(c.title for c in self.charts)})"

    def _repr_html_(self) -> str:
        return self.svg()


def line(y: Sequence[float], width: int = 120, height: int = 24) -> str:
    """A curve of the size of a word; empty where there are fewer than two points."""
    if len(y) < 2:
        return ""
    low, high = min(y), max(y)
    span = (high - low) or 1.0
    points = " ".join(
        f"{2 + (width - 4) * i / (len(y) - 1):.1f},{height - 3 - (height - 6) * (v - low) / span:.1f}"
        for i, v in enumerate(y)
    )
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<polyline points="{points}" fill="none" stroke="{COLOURS["main"]}" stroke-width="1.5"/></svg>'
    )


@dataclass(frozen=True)
class _Axes:
    """From numbers to places in a chart."""

    x: tuple[float, float]
    y: tuple[float, float]
    log: bool

    def across(self, x: float) -> float:
        low, high = self.x
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - low) / ((high - low) or 1.0)

    def up(self, y: float) -> float:
        low, high, y = (math.log10(v) if self.log else v for v in (*self.y, y))
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / ((high - low) or 1.0)

    def at(self, x: float, y: float) -> str:
        return f"{self.across(x):.1f},{self.up(y):.1f}"


def _chart(chart: Chart) -> str:
    series = chart.series
    stacked = [s for s in series if s.style == "stack"]
    tops = _sums(stacked)
    xs = [x for s in series for x in s.x]
    ys = [y for s in series if s.style != "stack" for y in s.y] + [t for top in tops for t in top]
    solid = any(s.style in ("area", "stack", "overlay") for s in series)
    half = _width(series) / 2 if any(s.style in ("stack", "overlay") for s in series) else 0.0
    axes = _Axes(
        (min(xs) - half, max(xs) + half),
        _range([*ys, 0.0] if solid else ys, chart.log, chart.format == "percent"),
        chart.log,
    )
    head = f'<title>{escape(chart.label)}</title><text x="{LEFT}" y="16" font-weight="600">{escape(chart.title)}</text>'
    bases = [[0.0] * len(s.x) for s in stacked[:1]] + tops[:-1]
    bars = (_bars(s, axes, base, half) for s, base in zip(stacked, bases))
    drawn = (
        _bars(s, axes, [0.0] * len(s.x), half) if s.style == "overlay" else _curve(s, axes)
        for s in series
        if s.style != "stack"
    )
    return head + _legend(series) + "".join(_grid(chart, axes)) + "".join(bars) + "".join(drawn)


def _sums(stacked: Sequence[Series]) -> list[list[float]]:
    """Where each series of a stack ends."""
    tops: list[list[float]] = []
    for s in stacked:
        tops.append([a + b for a, b in zip(tops[-1], s.y)] if tops else list(s.y))
    return tops


def _range(y: Sequence[float], log: bool, share: bool) -> tuple[float, float]:
    low, high = min(y), max(y)
    if log:
        return (low, high) if low < high else (low / 2, high * 2)
    room = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    low, high = low - (room if low else 0.0), high + room
    return (max(low, 0.0), min(high, 1.0)) if share else (low, high)


def _width(series: Sequence[Series]) -> float:
    """How far bars stand apart."""
    x = series[0].x
    return x[1] - x[0] if len(x) > 1 else 1.0


def _grid(chart: Chart, axes: _Axes) -> Iterator[str]:
    low, high = axes.y
    for share in (0.0, 0.5, 1.0):
        y = low * (high / low) ** share if axes.log else low + share * (high - low)
        up = axes.up(y)
        y = 0.0 if abs(y) < 1e-3 * (high - low) and not axes.log else y
        yield f'<path d="M{LEFT},{up:.1f}H{WIDTH - RIGHT}" stroke="currentColor" opacity="0.15"/>'
        yield f'<text x="{LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{escape(written(y, chart.format))}</text>'
    for x, anchor in ((axes.x[0], "start"), (axes.x[1], "end")):
        yield f'<text x="{axes.across(x):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{x:.4g}</text>'
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(chart.x_title)}</text>'


def _legend(series: Iterable[Series]) -> str:
    named = [s for s in series if s.style != "faint"]
    words = "   ".join(f'<tspan fill="{COLOURS[s.colour]}">●</tspan> {escape(s.name)}' for s in named)
    return f'<text x="{LEFT}" y="31" font-size="10" xml:space="preserve">{words}</text>'


def _curve(s: Series, axes: _Axes) -> str:
    colour, points = COLOURS[s.colour], [axes.at(x, y) for x, y in zip(s.x, s.y)]
    if s.style == "points" or len(points) == 1:
        dots = "".join(f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="3"/>' for p in points)
        joined = f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" opacity="0.4"/>'
        return f'{joined}<g fill="{colour}">{dots}</g>'
    if s.style == "area":
        ends = f"{axes.at(s.x[-1], 0.0)} {axes.at(s.x[0], 0.0)}"
        return f'<polygon points="{" ".join(points)} {ends}" fill="{colour}" opacity="0.5"/>'
    look = {"dash": ' stroke-dasharray="4 3"', "faint": ' opacity="0.35"'}.get(s.style, "")
    return f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.5"{look}/>'


def _bars(s: Series, axes: _Axes, base: Sequence[float], half: float) -> str:
    boxes = []
    for x, y, low in zip(s.x, s.y, base):
        left, right, top, bottom = axes.across(x - half), axes.across(x + half), axes.up(low + y), axes.up(low)
        boxes.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"/>')
    return f'<g fill="{COLOURS[s.colour]}" opacity="{0.6 if s.style == "overlay" else 1}">{"".join(boxes)}</g>'
