"""What a plan came to, on the terminal."""

from __future__ import annotations

import rich.console
from rich import box
from rich.table import Table
from rich.text import Text

from policyopt.stages.carry import Planned
from policyopt.training.charts import number, written
from policyopt.training.console import writable


def show(found: Planned, out: rich.console.Console | None = None) -> None:
    """Print a line for each stage, and where the report and the model lie."""
    out = out or rich.console.Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, title="Held-out, after each stage", title_justify="left", title_style="bold")
    for column in ("stage", "method", "steps", "accuracy", "length"):
        table.add_column(column, justify="left" if column in ("stage", "method") else "right")
    for name, result in found.stages.items():
        summary = result.summary
        after = summary.get("after") or {}
        table.add_row(
            writable(name, out), writable(str(summary.get("method", "")), out), str(summary.get("steps", "")),
            written(number(after.get("accuracy")), "percent"), written(number(after.get("length"))),
        )  # fmt: skip
    out.print()
    out.print(table)
    lines = [f"report: {found.report}"]
    lines.append(f"go on with: policyopt train --resume {found.out}" if found.stopped else f"model: {found.model}")
    for line in lines:
        out.print(Text(writable(line, out)), soft_wrap=True)
