"""Small panels with two logarithmic axes, as an SVG that is read on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM, ACROSS = 280, 210, 52, 34, 12, 34, 3
"""Size of a panel, what lies round its frame, and how many stand side by side."""

INKS = (("#6e7781", "#9198a1"), ("#0969da", "#58a6ff"), ("#bc4c00", "#f0883e"), ("#8250df", "#bc8cff"))
"""Of the series, on light and on dark."""


def slope(points: Points) -> float:
    """Of the straight line through log y against log x, by least squares: 1 where y grows in proportion to x."""
    xs, ys = ([math.log(p[i]) for p in points] for i in (0, 1))
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((a - x) ** 2 for a in xs)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread if spread else math.nan


def panels(curves: Mapping[str, Mapping[str, Points]], ylabel: str) -> str:
    """One panel for each entry of ``curves``, which holds the points of every series by name; the slope of each series stands in
    it. All panels have the y axis."""
    names = list(dict.fromkeys(name for series in curves.values() for name in series))
    ink = dict(zip(names, range(len(names)), strict=True))
    across = max(1, min(ACROSS, len(curves)))
    rows = max(1, math.ceil(len(curves) / across))
    light = "".join(f".s{i}{{stroke:{a};fill:{a}}}" for i, (a, _) in enumerate(INKS))
    dark = "".join(f".s{i}{{stroke:{b};fill:{b}}}" for i, (_, b) in enumerate(INKS))
    style = (
        f"svg{{background:#fff}}text{{font:11px sans-serif;fill:#1b1f24;stroke:none}}.t{{font-size:12px;font-weight:600}}"
        f".f{{fill:none;stroke:#8c959f}}path{{fill:none!important;stroke-width:1.6}}{light}"
        f"@media(prefers-color-scheme:dark){{svg{{background:#0d1117}}text{{fill:#e6edf3}}.f{{stroke:#57606a}}{dark}}}"
        ".k{font-weight:600;stroke:none}text.k{fill:inherit}"
    )
    every = [y for series in curves.values() for points in series.values() for _, y in points if y > 0]
    span = (min(every, default=0.1) / 1.2, max(every, default=10) * 1.2)
    legend = " ".join(
        f'<g class="s{ink[n] % len(INKS)}"><rect x="{8 + 110 * i}" y="9" width="14" height="3"/></g>'
        f'<text x="{26 + 110 * i}" y="14">{escape(n)}</text>'
        for i, n in enumerate(names)
    )
    drawn = "\n".join(
        _panel(title, curves[title], ink, span, WIDTH * (i % across), 20 + HEIGHT * (i // across))
        for i, title in enumerate(curves)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * across} {20 + HEIGHT * rows + 16}" role="img" '
        f'aria-label="{escape(ylabel)}"><style>{style}</style>\n{legend}\n{drawn}\n'
        f'<text x="8" y="{20 + HEIGHT * rows + 8}">{escape(ylabel)}; both axes logarithmic, in brackets the slope</text></svg>\n'
    )


def _panel(
    title: str, series: Mapping[str, Points], ink: Mapping[str, int], span: tuple[float, float], x: int, y: int
) -> str:
    across = [p[0] for points in series.values() for p in points]
    low, high = min(across), max(across)
    left, right, top, bottom = x + LEFT, x + WIDTH - RIGHT, y + TOP, y + HEIGHT - BOTTOM

    def place(a: float, b: float) -> tuple[float, float]:
        return (
            left + 8 + (right - left - 16) * math.log(a / low) / max(1e-9, math.log(high / low)),
            bottom - (bottom - top) * math.log(max(b, span[0]) / span[0]) / math.log(span[1] / span[0]),
        )

    out = [f'<text class="t" x="{left}" y="{top - 18}">{escape(title)}</text>']
    out += [f'<rect class="f" x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/>']
    for a in sorted(set(across)):
        out += [f'<text x="{place(a, span[1])[0]:.0f}" y="{bottom + 14}" text-anchor="middle">{a:,g}</text>']
    for mark in _marks(*span):
        at = place(low, mark)[1]
        out += [f'<text x="{left - 5}" y="{at + 4:.0f}" text-anchor="end">{mark:,g}</text>']
        out += [f'<path class="f" d="M{left} {at:.1f}h4"/>']
    slopes = []
    for name, points in series.items():
        places = [place(*p) for p in sorted(points)]
        line = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>' for a, b in places)
        out += [f'<g class="s{ink[name] % len(INKS)}"><path d="M{line}"/>{dots}</g>']
        slopes += [f"{name} ({slope(points):.2f})"] if len(points) > 1 else []
    return "\n".join([*out, f'<text x="{left}" y="{top - 5}">{escape("  ".join(slopes))}</text>'])


def _marks(low: float, high: float) -> list[float]:
    """Powers of ten, and 2 and 5 times them where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 100 else (1,)
    return [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high]
