"""Two means with their intervals, a point for each name, as an SVG that is read on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape

from policyopt.comparing.curves import pareto
from policyopt.comparing.results import Interval

Points = Mapping[str, tuple[Interval, Interval]]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 58, 16, 16, 44
FONT, WIDE, HIGH = 12, 6.6, 14
"""Size of a letter, its width and the height of a line of them, in pixels."""
STEPS = (5.0, 0.05)
"""From mark to mark, across and up."""
STYLE = (
    "svg{background:#fff}text{font:12px sans-serif;fill:#1b1f24;paint-order:stroke;stroke:#fff;stroke-width:3px}.f{stroke:#8c959f;fill:none}.b{stroke:#0969da;opacity:.55}"
    ".p{fill:#0969da}.l{stroke:#8c959f;fill:none;stroke-dasharray:4 3}.k .p{fill:#bc4c00}.k .b{stroke:#bc4c00}.k text{font-weight:600}"
    "@media(prefers-color-scheme:dark){svg{background:#0d1117}text{fill:#e6edf3;stroke:#0d1117}.f{stroke:#57606a}.b{stroke:#58a6ff}.p{fill:#58a6ff}"
    ".k .p{fill:#f0883e}.k .b{stroke:#f0883e}}"
)


def draw(points: Points, across: str, up: str) -> str:
    """The picture of (x, y) by name; y is a share. The first name stands out, and a broken line joins those that no other beats in both."""
    axes = _Axes(points)
    best = pareto({name: (x.mean, y.mean) for name, (x, y) in points.items()})
    line = " ".join("{:.1f},{:.1f}".format(*axes.at(*(i.mean for i in points[name]))) for name in best)
    told = "; ".join(f"{n}: {x.mean:.1f} {across}, {y.mean:.1%} {up}" for n, (x, y) in points.items())
    drawn = "\n".join([*axes.grid(across, up), f'<polyline class="l" points="{line}"/>', *_marks(points, axes)])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}">'
        f"<style>{STYLE}</style>\n{drawn}\n</svg>\n"
    )


class _Axes:
    """From numbers to places."""

    def __init__(self, points: Points) -> None:
        self.spans = [
            _room([e for pair in points.values() for e in (pair[i].mean, *_ends(pair[i]))], step)
            for i, step in enumerate(STEPS)
        ]

    def at(self, x: float, y: float) -> tuple[float, float]:
        (left, right), (low, high) = self.spans
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * (x - left) / (right - left),
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low),
        )

    def grid(self, across: str, up: str) -> Iterator[str]:
        left, low = (span[0] for span in self.spans)
        yield f'<rect class="f" x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"/>'
        for x in _ticks(self.spans[0], STEPS[0]):
            yield f'<text x="{self.at(x, low)[0]:.0f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>'
        for y in _ticks(self.spans[1], STEPS[1]):
            yield f'<text x="{LEFT - 6}" y="{self.at(left, y)[1] + 4:.0f}" text-anchor="end">{100 * y:.0f} %</text>'
        yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(across)}</text>'
        yield f'<text x="{LEFT + 8}" y="{TOP + 18}">{escape(up)}</text>'


def _ends(x: Interval) -> list[float]:
    return [e for e in (x.low, x.high) if math.isfinite(e)]


def _room(values: list[float], step: float) -> tuple[float, float]:
    """Whole steps around all values."""
    low, high = math.floor(min(values) / step) * step, math.ceil(max(values) / step) * step
    return low, high if high > low else low + step


def _ticks(span: tuple[float, float], step: float) -> list[float]:
    """Whole steps, both ends among them."""
    n = round((span[1] - span[0]) / step)
    return [span[0] + step * i for i in range(n + 1)]


def _marks(points: Points, axes: _Axes) -> Iterator[str]:
    """Points with bars; over all of them their names, each where there is room, joined by a line where that is not beside its point."""
    places = {name: axes.at(x.mean, y.mean) for name, (x, y) in points.items()}
    taken = [(a - 5, b - 5, a + 5, b + 5) for a, b in places.values()]
    texts = []
    for i, (name, (x, y)) in enumerate(points.items()):
        a, b = places[name]
        wide, group = WIDE * len(name), "<g>" if i else '<g class="k">'
        box = next((c for c in _around(a, b, wide) if not any(_meet(c, t) for t in taken)), None)
        box = box or (a + 8, b - HIGH / 2, a + 8 + wide, b + HIGH / 2)
        taken.append(box)
        ends = [(axes.at(e, y.mean)[0], b) for e in _ends(x)] + [(a, axes.at(x.mean, e)[1]) for e in _ends(y)]
        bars = "".join(f'<path class="b" d="M{u:.1f} {v:.1f}L{a:.1f} {b:.1f}"/>' for u, v in ends)
        yield f'{group}{bars}<circle class="p" cx="{a:.1f}" cy="{b:.1f}" r="4"/></g>'
        near = (min(max(a, box[0]), box[2]), min(max(b, box[1]), box[3]))
        lead = (
            f'<path class="f" d="M{a:.1f} {b:.1f}L{near[0]:.1f} {near[1]:.1f}"/>'
            if math.dist(near, (a, b)) > 14
            else ""
        )
        texts.append(f'{group}{lead}<text x="{box[0]:.1f}" y="{box[3] - 3:.1f}">{escape(name)}</text></g>')
    yield from texts


Box = tuple[float, float, float, float]


def _around(a: float, b: float, width: float) -> Iterator[Box]:
    """Boxes for a name around a point inside of the frame, the nearest ones first."""
    for far in range(9, 160, 8):
        for turn in (0, 180, 30, 330, 150, 210, 60, 300, 120, 240, 90, 270):
            u, v = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            x, y = a + far * u + (u - 1) * width / 2, b - far * v - HIGH / 2
            if x > LEFT + 2 and x + width < WIDTH - RIGHT - 2 and y > TOP + 2 and y + HIGH < HEIGHT - BOTTOM - 2:
                yield x, y, x + width, y + HIGH


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
