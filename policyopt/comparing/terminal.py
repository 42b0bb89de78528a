"""A comparison on a terminal: its progress, and the table of what it found."""

from __future__ import annotations

import time
from collections.abc import Sequence

import rich.console
from rich import box
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from policyopt.claims import recorded
from policyopt.comparing.measures import shown
from policyopt.comparing.replications import Replication, seen_of
from policyopt.comparing.results import Comparison, Line, Measure
from policyopt.comparing.runner import Progress as Cells
from policyopt.training.console import duration, writable

MAIN = {"accuracy", "distinct", "length", "drop", "entropy", "kl/ref", "tokens to target", "seconds/step"}
"""The metrics of the tables on a terminal, beside pass@k; the page has all."""


class Watch:
    """The progress of the cells: a bar for each that runs on a terminal, elsewhere a line for each that ends."""

    def __init__(self, out: rich.console.Console, quiet: bool = False) -> None:
        self.out, self.quiet, self._begun = out, quiet, time.monotonic()
        self._live = out.is_terminal and not quiet
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), console=out
        )
        self._tasks: dict[str, TaskID] = {}
        self._told = (-1, -1)
        self._first: float | None = None
        """What was done when it began to look."""

    def __enter__(self) -> Watch:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._bars.stop()

    def __call__(self, cells: Cells) -> None:
        """Take how far the cells are."""
        ended = (cells.done, len(cells.failed))
        if self._live:
            self._draw(cells)
        elif not self.quiet and ended != self._told:
            failed = f", {len(cells.failed)} failed" if cells.failed else ""
            took = duration(time.monotonic() - self._begun)
            self.out.print(Text(f"{cells.done} of {cells.total} runs{failed}  {took}"), soft_wrap=True)
        for folder in list(cells.failed)[self._told[1] if self._told[1] > 0 else 0 :]:
            if not self.quiet and ended != self._told:
                self.out.print(
                    Text(writable(f"{folder} did not end: {cells.failed[folder]}", self.out)), soft_wrap=True
                )
        self._told = ended

    def _draw(self, cells: Cells) -> None:
        whole = self._tasks.setdefault("", self._bars.add_task("") if "" not in self._tasks else self._tasks[""])
        part = sum(share for _, share in cells.running.values())
        failed = f", {len(cells.failed)} failed" if cells.failed else ""
        self._bars.update(
            whole, total=cells.total, completed=cells.done + len(cells.failed) + part,
            description=f"{cells.done} of {cells.total} runs{failed}{self._left(cells, part)}",
        )  # fmt: skip
        for folder in [*self._tasks]:
            if folder and folder not in cells.running:
                self._bars.remove_task(self._tasks.pop(folder))
        for folder, (cell, share) in cells.running.items():
            if folder not in self._tasks:
                self._tasks[folder] = self._bars.add_task("", total=1.0)
            told = writable(f"  {cell.contender}, seed {cell.seed}", self.out)
            self._bars.update(self._tasks[folder], completed=share, description=told)

    def _left(self, cells: Cells, part: float) -> str:
        if self._first is None:
            self._first = cells.done + part
        made = cells.done + part - self._first
        left = cells.total - len(cells.failed) - cells.done - part
        spent = time.monotonic() - self._begun
        return f", {duration(left * spent / made)} left" if made > 0.2 and spent > 20 else ""


def show(found: Comparison, out: rich.console.Console) -> None:
    """Print the table: what each contender has of the main metrics, and how it differs from the first."""
    first = found.contenders[0]
    for measure in found.measures:
        if measure.name not in MAIN and not measure.name.startswith("pass@"):
            continue
        rows = [line for line in found.lines if line.metric == measure.name]
        out.print(_table(measure, rows, first, out))
    for (contender, seed), reason in found.missing.items():
        out.print(Text(writable(f"missing: {contender}, seed {seed}: {reason}", out), "yellow"), soft_wrap=True)


def _table(measure: Measure, rows: Sequence[Line], first: str, out: rich.console.Console) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=measure.label, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("", overflow="fold")
    table.add_column("mean (95 %)", justify="right")
    table.add_column(writable(f"compared to {first}", out), overflow="fold")
    for line in rows:
        v, f = line.value, measure.format
        interval = f"{shown(v.mean, f)} ({shown(v.low, f)} to {shown(v.high, f)})"
        table.add_row(writable(line.contender, out), interval, line.words)
    return table


def replications(out: rich.console.Console, found: Sequence[Replication] | None = None) -> None:
    """Print what came of claims; unset: of those that were recorded, in short."""
    if found is None:
        rows = recorded()
        table = Table("method", "verdict", "seeds", "claim", box=box.SIMPLE_HEAD, pad_edge=False)
        for name, row in rows.items():
            table.add_row(name, str(row["verdict"]), str(row["seeds"] or ""), str(row["says"]))
        out.print(table if rows else "no claim was put to the test yet: policyopt replicate METHOD")
        return
    for r in found:
        told = f" on {r.testbed} against {r.against}, {r.seeds} seeds, {r.minutes:g} min" if r.testbed else ""
        out.print(Text.assemble((r.method, "bold"), ": ", (r.verdict, "bold"), told), soft_wrap=True)
        lines = [r.says, *(f"{e.verdict}: {seen_of(e)}" for e in r.effects), *([r.reason] if r.reason else [])]
        for line in lines:
            out.print(Text(f"  {line}"), soft_wrap=True)
