"""Draws the house: the packages and modules of policyopt, one row a storey, every import an arrow that runs down.

``python docs/house.py`` reads the imports, prints the storeys, and writes docs/images/house.svg.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent / "policyopt"
OUT = Path(__file__).parent / "images" / "house.svg"

ROOM, HEIGHT, GAP, STOREY, MARGIN = 118, 44, 22, 92, 24
"""Width and height of a box, and the space between two boxes, two storeys, and round the picture, in pixels."""


def room(path: Path) -> str:
    """The room that a file belongs to: its package, or itself where it lies in the root."""
    inside = path.relative_to(ROOT)
    return inside.parts[0].removesuffix(".py")


def rooms(root: Path = ROOT) -> dict[str, list[Path]]:
    """The files of every room; the two doors, ``__init__`` and ``__main__``, are none."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.py")):
        if not room(path).startswith("__"):
            found.setdefault(room(path), []).append(path)
    return found


def imported(path: Path) -> set[str]:
    """The rooms that a file imports from when it is loaded; what is imported inside a function is not among them."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "policyopt":
            inner = node.module.split(".")[1:]
            names |= {inner[0]} if inner else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("policyopt.")}
    return names


def arrows() -> dict[str, set[str]]:
    """The rooms that each room imports from."""
    known = rooms()
    return {name: set().union(*map(imported, files)) & known.keys() - {name} for name, files in known.items()}


def storeys(down: Mapping[str, set[str]]) -> list[list[str]]:
    """The rooms by storey, the lowest first: each stands above everything that it imports from.

    Raises ``ValueError`` naming the rooms of a circle.
    """
    level: dict[str, int] = {}
    while len(level) < len(down):
        ready = {name for name, below in down.items() if name not in level and below <= level.keys()}
        if not ready:
            raise ValueError(f"imports run in a circle among {', '.join(sorted(down.keys() - level.keys()))}")
        level |= {name: 1 + max((level[b] for b in down[name]), default=-1) for name in ready}
    return [sorted(n for n in level if level[n] == i) for i in range(max(level.values()) + 1)]


def draw(down: Mapping[str, set[str]]) -> str:
    """The picture as SVG."""
    rows, files = storeys(down)[::-1], rooms()
    width = max(len(row) for row in rows) * (ROOM + GAP) - GAP + 2 * MARGIN
    place = {
        name: (
            MARGIN + (width - 2 * MARGIN - len(row) * (ROOM + GAP) + GAP) / 2 + i * (ROOM + GAP),
            MARGIN + y * STOREY,
        )
        for y, row in enumerate(rows)
        for i, name in enumerate(row)
    }
    lines = [
        f'<line x1="{place[a][0] + ROOM / 2:.0f}" y1="{place[a][1] + HEIGHT:.0f}" '
        f'x2="{place[b][0] + ROOM / 2:.0f}" y2="{place[b][1]:.0f}"/>'
        for a in down
        for b in sorted(_direct(a, down))
    ]
    boxes = [_box(name, *place[name], files[name]) for name in place]
    size = f"{width:.0f} {2 * MARGIN + (len(rows) - 1) * STOREY + HEIGHT:.0f}"
    style = (
        "text{font:13px sans-serif;fill:#1b1f24;text-anchor:middle}.s{font-size:10px;fill:#57606a}"
        "line{stroke:#8c959f;stroke-width:1}rect{fill:#f6f8fa;stroke:#57606a;rx:5}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img" '
        f'aria-label="The packages of policyopt and what imports what"><style>{style}</style>'
        f'<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>'
        + "\n".join(["", *lines, *boxes, "</svg>", ""])
    )


def _direct(name: str, down: Mapping[str, set[str]]) -> set[str]:
    """The rooms below that are not reached through another one: an arrow to each of the others follows from these."""
    reached = {b: set().union(*(_all(c, down) for c in down[name] if c != b)) for b in down[name]}
    return {b for b in down[name] if b not in reached[b]}


def _all(name: str, down: Mapping[str, set[str]]) -> set[str]:
    return {name}.union(*(_all(b, down) for b in down[name]))


def _box(name: str, x: float, y: float, files: list[Path]) -> str:
    lines = sum(len(f.read_text().splitlines()) for f in files)
    what = f"{len(files)} files, {lines:,} lines" if len(files) > 1 else f"{lines:,} lines"
    middle = x + ROOM / 2
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{ROOM}" height="{HEIGHT}"/>'
        f'<text x="{middle:.0f}" y="{y + 19:.0f}">{escape(name)}</text>'
        f'<text class="s" x="{middle:.0f}" y="{y + 34:.0f}">{what}</text>'
    )


if __name__ == "__main__":
    for floor in reversed(storeys(arrows())):
        print("  ".join(floor))
    OUT.write_text(draw(arrows()))
