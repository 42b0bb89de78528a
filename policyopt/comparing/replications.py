"""What came of claims, as data, as a page, and as it was recorded for the library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any, Literal

from policyopt.comparing.measures import shown
from policyopt.comparing.results import Interval
from policyopt.files import Malformed, parse_json

Verdict = Literal["supported", "not supported", "undecided", "cannot show here"]
DATA = "replication.json"
"""What came of the claims of the library, beside this file."""


@dataclass(frozen=True)
class Finding:
    """What came of one effect of a claim."""

    metric: str
    direction: str
    least: float
    format: str
    ours: float
    theirs: float
    difference: Interval
    verdict: Verdict


@dataclass(frozen=True)
class Replication:
    """What came of a claim."""

    method: str
    says: str
    verdict: Verdict
    testbed: str = ""
    against: str = ""
    seeds: int = 0
    minutes: float = 0.0
    """Of training, of all runs of both sides, each on one core; runs that claims share count in each."""
    effects: tuple[Finding, ...] = ()
    reason: str = ""
    """Why it cannot be shown here, or why nothing is known."""
    settings: str = ""
    """Options of the runs."""


def recorded() -> dict[str, dict[str, Any]]:
    """What came of the claims of the library, by method, as it was recorded; empty where nothing was."""
    try:
        text = resources.files("policyopt.comparing").joinpath(DATA).read_text("utf-8")
        found = parse_json(text)
    except (OSError, Malformed):
        return {}
    return found if isinstance(found, dict) else {}


def to_json(found: Sequence[Replication]) -> str:
    """By method, one line each."""
    rows = (f"{json.dumps(r.method)}: {json.dumps(asdict(r))}" for r in sorted(found, key=lambda r: r.method))
    return "{\n" + ",\n".join(rows) + "\n}\n"


def markdown(found: Sequence[Replication], about: str) -> str:
    """The page of all claims: how many came out how, and a table of each verdict."""
    order: tuple[Verdict, ...] = ("supported", "not supported", "undecided", "cannot show here")
    count = {v: sum(r.verdict == v for r in found) for v in order}
    parts = [about.strip(), "", ", ".join(f"{count[v]} {v}" for v in order) + "."]
    for v in order:
        rows = sorted((r for r in found if r.verdict == v), key=lambda r: r.method)
        if not rows:
            continue
        parts += ["", f"## {v.capitalize()}", ""]
        if v == "cannot show here":
            parts += ["| method | claim | why not |", "| --- | --- | --- |"]
            parts += [f"| `{r.method}` | {_cell(r.says)} | {_cell(r.reason)} |" for r in rows]
            continue
        parts += [
            "| method | claim | testbed, against | what was seen (asked) | seeds, minutes |",
            "| --- | --- | --- | --- | --- |",
        ]
        for r in rows:
            seen = "<br>".join(seen_of(e) for e in r.effects) or r.reason
            where = f"{r.testbed}, {r.against}" + (f"<br><sub>{_cell(r.settings)}</sub>" if r.settings else "")
            parts.append(f"| `{r.method}` | {_cell(r.says)} | {where} | {seen} | {r.seeds}, {r.minutes:g} |")
    return "\n".join(parts) + "\n"


def seen_of(e: Finding) -> str:
    """An effect in words: both sides, the difference with its interval, and what was asked for."""
    f = e.format
    points = " points" if f == "percent" else ""
    d = e.difference
    asked = f"{'at least' if e.direction == 'higher' else 'at most'} {shown(e.least if e.direction == 'higher' else -e.least, f, True)}"
    return (
        f"{e.metric} {shown(e.theirs, f)} → {shown(e.ours, f)}: {shown(d.mean, f, True)}{points} "
        f"({shown(d.low, f, True)} to {shown(d.high, f, True)}; {asked})"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
