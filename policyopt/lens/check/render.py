"""A report as a table in the terminal, many reports as one table of short marks, there or in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from policyopt.lens.check.report import Finding, Report

COLUMNS: dict[str, str] = {
    "shift": "the gradient stays the same when every reward is moved by a constant",
    "scale": "doubling every reward leaves the gradient as it is (inv), doubles what the reward contributes (lin), or "
    "neither (no)",
    "dead": "gradient of groups whose answers all have the same reward: none (0), only where all are right (+) or "
    "wrong (-), in both (yes), or one that the reward has no part in (other)",
    "len+": "d log|w| / d log|y| for A > 0: 0 is no length bias, -1 a weight of 1/|y|",
    "len-": "the same for A < 0",
    "+0": "|w| for A > 0 as the ratio goes to 0: vanishes (0), stays bounded (c), grows (inf)",
    "+inf": "for A > 0 as the ratio grows",
    "-0": "for A < 0 as the ratio goes to 0",
    "-inf": "for A < 0 as the ratio grows",
    "on-policy": "at ratio 1 the gradient is that of REINFORCE with the same advantage and shares (yes), a multiple "
    "(x2), or another (no)",
    "off-policy": "what the gradient is unbiased for when another policy sampled, by enumeration: the policy gradient "
    "for whole responses (sequence) or token by token (token), with ~ only while ratios are near 1; only when the "
    "policies are one (on-policy); not even then (no)",
    "sound": "the gradient is the derivative of the loss; padding, order and micro-batches change nothing",
}
"""The columns of the table of all methods, and what they say."""


def mark(report: Report, column: str) -> str:
    """The cell of a report in the table of all methods."""
    if column == "sound":
        return "NO" if report.broken else "ok"
    found: dict[str, Finding] = {f.key: f for f in report.findings}
    return found[column].short if column in found else "?"


def rows(reports: Iterable[Report]) -> list[list[str]]:
    """A row for each report: its name and its marks."""
    return [[report.name, *(mark(report, column) for column in COLUMNS)] for report in reports]


def text(reports: Sequence[Report]) -> str:
    """The table of all methods as aligned text, with a legend."""
    lines = [["method", *COLUMNS], *rows(reports)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    legend = [f"{name:<10}  {meaning}" for name, meaning in {**COLUMNS, "-": NOTHING}.items()]
    return "\n".join([*table, "", *legend])


NOTHING = "has no meaning there; `policyopt check METHOD` says why"

PAGE = """\
# Properties of the methods

Measured on seeded random batches in float64, with the defaults of each method; nothing here is written by hand.
`policyopt check METHOD` shows the numbers behind a row, `policyopt check FILE.py` measures your own method or part.
This page is the output of

    policyopt list --properties --markdown > docs/properties.md

{table}

{legend}

w is the weight of a token in the gradient: grad L = - sum over rows i and tokens t of w[i, t] * grad log pi(y[i, t]).
Regularisers are left out of all columns but shift, scale and sound. How each is measured is in the docstrings of
`policyopt/lens/check/`.
"""


def markdown(reports: Sequence[Report]) -> str:
    """The table of all methods as a page."""
    lines = [["method", *COLUMNS], ["---"] * (len(COLUMNS) + 1), *rows(reports)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    legend = "\n".join(f"- **{name}**: {meaning}" for name, meaning in {**COLUMNS, "-": NOTHING}.items())
    return PAGE.format(table=table, legend=legend).rstrip("\n")


def show(report: Report, console: Console) -> None:
    """One report in full: what is wrong first, then a line for every property with its number."""

    def say(*pieces: str | tuple[str, str]) -> None:
        console.print(Text.assemble(*pieces), soft_wrap=True)

    broken = [f"{report.name}: {f.name}: {f.value}" for f in report.findings if f.broken]
    for fault in report.faults or broken:
        say((f"broken: {fault}", "bold red"))
    if report.findings:
        say((report.name, "bold"))
    widths = [max((len(x) for x in column), default=0) for column in zip(*((f.name, f.value) for f in report.findings))]
    for f in report.findings:
        number = "" if f.number is None else f"{f.number:.2g}"
        measured = " ".join(filter(None, [number, f.note]))
        style = "bold red" if f.broken else "dim" if f.value == "n/a" else ""
        shown = f.value.ljust(widths[1] + 2) if measured else f.value
        say(f"  {f.name.ljust(widths[0])}  ", (shown, style), (measured, "dim"))
    for note in report.notes:
        say((f"{report.name}: {note}", "dim"))
    if report.findings and not report.broken:
        say(("nothing is broken", "green"))
