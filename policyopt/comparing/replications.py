"""What came of claims, as data, as a page, and as it was recorded for the library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from policyopt.comparing.measures import shown
from policyopt.comparing.results import Interval
from policyopt.files import read_json, write_whole
from policyopt.training.plans import Format

Verdict = Literal["supported", "not supported", "undecided", "cannot show here", "not run yet"]


@dataclass(frozen=True)
class Finding:
    """What came of one effect of a claim."""

    metric: str
    direction: str
    least: float
    format: Format
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


def read_replications(data: Mapping[str, Any]) -> list[Replication]:
    """What :func:`recorded` found, as objects. Raises ``ValueError`` for what is none."""
    return list(TypeAdapter(dict[str, Replication]).validate_python(dict(data)).values())


def record(found: Sequence[Replication], path: Path) -> None:
    """Put what came of claims into a file, in the place of what was recorded of fewer seeds, or of as many.

    Raises :class:`~policyopt.errors.UserError` for a file that is there and cannot be read: it stays as it is.
    """
    known = read_json(path) if path.exists() else {}
    for r in found:
        if r.verdict == "cannot show here" or r.seeds >= max(2, known.get(r.method, {}).get("seeds", 0)):
            known[r.method] = asdict(r)
    write_whole(path, to_json(read_replications(known)))


def to_json(found: Sequence[Replication]) -> str:
    """By method, one line each."""
    rows = (
        f"{json.dumps(r.method)}: {json.dumps(asdict(r), allow_nan=False)}"
        for r in sorted(found, key=lambda r: r.method)
    )
    return "{\n" + ",\n".join(rows) + "\n}\n"


def markdown(found: Sequence[Replication], about: str) -> str:
    """The page of all claims: how many came out how, and a table of each verdict."""
    order: tuple[Verdict, ...] = get_args(Verdict)
    count = {v: sum(r.verdict == v for r in found) for v in order}
    parts = [about.strip(), "", ", ".join(f"{count[v]} {v}" for v in order if count[v]) + "."]
    for v in order:
        rows = sorted((r for r in found if r.verdict == v), key=lambda r: r.method)
        if not rows:
            continue
        parts += ["", f"## {v.capitalize()}", ""]
        if v in ("cannot show here", "not run yet"):
            why = "why not" if v == "cannot show here" else "how it would be shown"
            parts += [f"| method | claim | {why} |", "| --- | --- | --- |"]
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
