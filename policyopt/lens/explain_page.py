"""An explanation as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup, escape

from policyopt.errors import UserError
from policyopt.lens.drawn_rows import KINDS, Drawn, DrawnRow, Token
from policyopt.lens.explain import Explanation
from policyopt.lens.explain_terminal import (
    CONFIDENCE,
    SILENT,
    advantage,
    cost_rows,
    exponent,
    reward,
    short,
    shown,
    strongest,
    through,
    visible,
)
from policyopt.lens.formula import lines, mathml, prose
from policyopt.lens.probe_batch import BUDGET, Picture, Row
from policyopt.page import render_page, template_text, write_page
from policyopt.training.charts import written

Grid = tuple[tuple[float, ...], ...]


def write_explanation(explanation: Explanation, path: Path) -> Path:
    """Write the page and return its path. Raises :class:`~policyopt.errors.UserError` where it cannot be written."""
    page = render(explanation)
    try:
        return write_page(path, page)
    except OSError as error:
        raise UserError(f"--out {path}: it cannot be written ({error.strerror or error})") from error


def render(e: Explanation) -> str:
    """The page as text."""
    pictures = [p for p in (e.picture, e.other) if p is not None]
    return render_page(
        "explain.html.j2",
        template_text("explain.js"),
        title=e.facts.name,
        summary=marked(e.facts.summary),
        facts=list(_facts(e)),
        formulas=[[Markup(mathml(piece, "block")) for piece in lines(latex)] for latex in e.facts.formulas],
        notes=[marked(note) for note in e.facts.notes],
        panels=[_panel(p) for p in pictures],
        budget=BUDGET,
        drawings=[
            _drawing(p.name, d)
            for p, d in ((e.picture, e.drawn), (e.other, e.other_drawn))
            if p is not None and d is not None
        ],
        compared=list(e.differences),
        parts=[(p, marked(p.doc), [(f, f.elsewhere) for f in p.fields]) for p in e.parts],
        gone=[(name, d) for name, found in e.differences.items() for d in found if d.here is None],
        needs=[(need, marked(need.doc)) for need in e.needs],
        costs=(list(e.costs), list(cost_rows(e.costs))),
        config=yaml.safe_dump(e.recipe.to_dict(), sort_keys=False),
    )


def marked(text: str) -> Markup:
    """Running text of a docstring as markup, its formulas as MathML."""
    shown = {"text": escape, "code": lambda x: Markup("<code>{}</code>").format(x), "math": lambda x: Markup(mathml(x))}
    return Markup("").join(shown[kind](x) for kind, x in prose(text))


def _facts(e: Explanation) -> Iterator[tuple[str, str, str]]:
    """(name, value, address) of what the registry knows; the address is empty where there is nothing to open."""
    f = e.facts
    arxiv = f.source.removeprefix("arXiv:")
    found = (
        ("Family", f.family, ""),
        ("Parent", f.parent or "", ""),
        ("Source", f.source, f"https://arxiv.org/abs/{arxiv}" if arxiv != f.source else ""),
        ("Code", f.code or "", f"https://github.com/{f.code}" if f.code and f.code.count("/") == 1 else ""),
        ("Facts from", CONFIDENCE.get(f.confidence, f.confidence), ""),
        ("Claim", f"{f.claim} ({f.came})" if f.claim else "", ""),
    )
    yield from (fact for fact in found if fact[1])


# The token weights ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cell:
    """A token: its place in the batch, what it shows, and how strongly it is coloured (0 to 100)."""

    at: str
    text: str
    sign: str
    strength: int
    tip: str


def _panel(p: Picture) -> dict[str, Any]:
    grids = [("", p.weights), *((through(name), grid) for name, grid in p.others.items())]
    return {
        "name": p.name,
        "problem": p.problem,
        "grids": [{"title": title, "note": _note(p, grid), "rows": _rows(p.rows, grid)} for title, grid in grids],
    }


def _drawing(name: str, drawn: Drawn) -> dict[str, Any]:
    most = drawn.strongest
    rows, before = [], 0
    for row in drawn.rows:
        tokens = [_token(token, row, t, most) for t, token in enumerate(row.tokens)]
        rows.append(
            {
                "first": row.question != before,
                "question": row.question,
                "reward": reward(row).replace("-", "−"),
                "advantage": advantage(row).replace("-", "−"),
                "kinds": ", ".join(row.kinds),
                "tokens": tokens,
            }
        )
        before = row.question
    note = f"{shown(drawn)[0].upper()}{shown(drawn)[1:]} of the step." + ("" if most else f" {SILENT.capitalize()}.")
    return {"name": name, "note": note, "rows": rows, "kinds": [(kind, KINDS[kind][2]) for kind in drawn.kinds]}


def _token(token: Token, row: DrawnRow, t: int, most: float) -> dict[str, Any]:
    said = KINDS[token.kind][2]
    tip = f"token {t + 1} of {len(row.tokens)}: {said}"
    tip += "" if token.kind == "read" else f"\nw = {token.weight:.4g}".replace("-", "−")
    sign = "up" if token.weight > 0 else "down" if token.weight < 0 else "none"
    strength = round(100 * abs(token.weight) / most) if most else 0
    return {"text": visible(token.text), "kind": token.kind, "sign": sign, "strength": strength, "tip": tip}


def _note(p: Picture, grid: Grid) -> str:
    if not strongest(grid):
        return SILENT.capitalize() + "."
    flat = [w for row, values in zip(p.rows, grid, strict=True) if row.kept for w in values]
    up, down = sum(w > 0 for w in flat), sum(w < 0 for w in flat)
    left = sum(row.length for row in p.rows if not row.kept)
    told = f"{up} tokens up, {down} down, {len(flat) - up - down} silent" + (f", {left} left out" if left else "")
    power = exponent(grid)
    scale = f" Numbers in units of {10.0**-power:g}." if power else ""
    return f"{told}; the strongest colour is {written(strongest(grid))}.{scale}"


def _rows(rows: tuple[Row, ...], grid: Grid) -> list[dict[str, Any]]:
    most, unit = strongest(grid), 10.0 ** exponent(grid)
    if not most:
        return []
    out = []
    for i, (row, values) in enumerate(zip(rows, grid, strict=True)):
        cells = [_cell(row, f"{i},{t}", t, w, most, unit) for t, w in enumerate(values)]
        out.append(
            {
                "first": i == 0 or rows[i - 1].group != row.group,
                "group": row.group + 1,
                "reward": reward(row).replace("-", "−"),
                "advantage": advantage(row).replace("-", "−"),
                "length": row.length,
                "truncated": row.truncated,
                "kept": row.kept,
                "cells": cells,
            }
        )
    return out


def _cell(row: Row, at: str, t: int, w: float, most: float, unit: float) -> _Cell:
    facts = [f"token {t + 1} of {row.length}"]
    if row.kept:
        facts += [f"w = {w:.4g}", f"ratio {row.ratio[t]:.3f}", f"advantage {row.advantage[t]:+.3f}"]
    else:
        facts += ["a filter has left the response out"]
    strength = round(100 * abs(w) / most) if most else 0
    sign = "up" if w > 0 else "down" if w < 0 else "none"
    return _Cell(at, short(w * unit).replace("-", "−") if w else "", sign, strength, "\n".join(facts).replace("-", "−"))
