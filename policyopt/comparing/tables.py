"""The numbers of a comparison as files: tables for a spreadsheet, and everything as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from policyopt.comparing.results import Comparison, Interval, Line
from policyopt.files import write_whole
from policyopt.training.logging import disk_errors

TABLE, SEEDS, JSON = "table.csv", "seeds.csv", "comparison.json"


def write_tables(c: Comparison) -> tuple[Path, ...]:
    """Write ``table.csv`` (a row for each metric and contender), ``seeds.csv`` (one for each of their seeds) and
    ``comparison.json`` (all of it) into the folder of the comparison.

    What is not known is an empty cell, and null. Raises :class:`~policyopt.errors.UserError` where the disk is full or the folder
    may not be written.
    """
    written = []
    for name, text in ((TABLE, _csv(table(c))), (SEEDS, _csv(seeds(c))), (JSON, _json(c))):
        path = c.out / name
        with disk_errors(path):
            write_whole(path, text)
        written.append(path)
    return tuple(written)


def table(c: Comparison) -> list[dict[str, Any]]:
    """One row for each metric and contender: mean, interquartile mean, difference to the first contender and probability that it has
    more, each with its interval, p-values, and the words."""
    return [_row(line) for line in c.lines]


def seeds(c: Comparison) -> list[dict[str, Any]]:
    """One row for each metric, contender and seed."""
    return [
        {"metric": line.metric, "contender": line.contender, "seed": seed, "value": value}
        for line in c.lines
        for seed, value in zip(c.seeds, line.seeds, strict=True)
    ]


def _row(line: Line) -> dict[str, Any]:
    row: dict[str, Any] = {"metric": line.metric, "contender": line.contender, **_ends("", line.value), "iqm": line.iqm}
    row |= _ends("difference", line.difference) | {"p": line.p, "holm": line.holm}
    row |= _ends("improvement", line.improvement)
    return row | {"detectable": line.detectable, "words": line.words}


def _ends(name: str, found: Interval | None) -> dict[str, float | None]:
    ends = {"mean": None, "low": None, "high": None} if found is None else asdict(found)
    return {f"{name} {end}".strip(): value for end, value in ends.items()}


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _known(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _json(c: Comparison) -> str:
    found = {
        "facts": dict(c.facts),
        "contenders": c.contenders,
        "seeds": c.seeds,
        "missing": [{"contender": name, "seed": seed, "reason": why} for (name, seed), why in c.missing.items()],
        "metrics": [
            {"name": m.name, "label": m.label, "higher is better": m.higher, "format": m.format} for m in c.measures
        ],
        "lines": [{k: v for k, v in asdict(line).items() if k != "seeds"} for line in c.lines],
        "runs": seeds(c),
        "differing": c.differing,
    }
    return json.dumps(_known(found), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _known(x: Any) -> Any:
    """Plain data in which what is not finite is ``None``."""
    if isinstance(x, dict):
        return {str(k): _known(v) for k, v in x.items()}
    if isinstance(x, Iterable) and not isinstance(x, str):
        return [_known(v) for v in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x
