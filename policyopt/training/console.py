"""What a person sees of a run: one live view on a terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import rich.console
from rich import box
from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from policyopt.notebook import Output, in_kernel

MEASURED = "measured"
"""Where the summary of an evaluation says which of its numbers come from probes."""

# What the view shows: the name that people read, the metric (or the metrics to add up), and how to write a value.
MAIN = (
    ("reward", ("reward/mean",), ".2f"),
    ("accuracy", ("accuracy",), ".2f"),
    ("length", ("length/mean",), ".1f"),
    ("signal", ("signal/groups",), ".2f"),
    ("entropy", ("entropy",), ".2f"),
    ("kl", ("kl/ref",), ".2g"),
    ("clip", ("clip_fraction/low", "clip_fraction/high"), ".2g"),
    ("grad norm", ("grad_norm",), ".2g"),
    ("tokens/s", ("tokens_per_s",), ",.0f"),
)
PLAIN = ("reward", "accuracy", "length", "signal", "entropy")
BARS = "▁▂▃▄▅▆▇█"
SPARK = 14
NO_SIGNAL = "all responses to each prompt got the same reward: nothing to learn from in this step"


class Console:
    """Progress of a run of ``total`` steps; ``header`` says what runs (method, model, task, out).

    On a terminal, one view that is redrawn in place, and the same below the cell of a notebook; elsewhere one line for every ``every``-th step, for
    evaluations and for notes; with ``quiet``, nothing at all. Used as a context manager, and may be entered around the
    warm start too. Where there are no steps, as in an evaluation, ``total`` is 0.
    """

    def __init__(
        self,
        header: Mapping[str, object],
        total: int,
        *,
        every: int = 1,
        quiet: bool = False,
        out: rich.console.Console | None = None,
    ) -> None:
        self.header = {name: str(value) for name, value in header.items()}
        self.total = total
        self.every = max(1, every)
        self.out = rich.console.Console(quiet=True) if quiet else out or rich.console.Console(highlight=False)
        self.live = self.out.is_terminal and not self.out.is_dumb_terminal and not quiet
        self._cell = in_kernel() and not quiet
        self._view: Live | Output | None = None
        self._notes: list[str] = []
        self._done = 0
        self._history: dict[str, list[float]] = {}
        self._marks: deque[tuple[int, float]] = deque(maxlen=20)  # when the last steps ended, for the time left
        self._eval = ""
        self._signal = ""
        self._remark = ""
        self._phase: tuple[str, float, float] | None = None
        self._phase_told = 0.0

    def __enter__(self) -> Self:
        if self._cell:
            self._view = Output(self)
            self._view.start()
        elif self.live:
            self._view = Live(self, console=self.out, refresh_per_second=5)
            self._view.start(refresh=True)
        else:
            self._line("  ".join(f"{name} {value}" for name, value in self.header.items()))
        return self

    def __exit__(self, *_: object) -> None:
        self._phase = None
        if self._view is not None:
            self._view.stop()
            self._view = None

    def step(self, step: int, metrics: Mapping[str, float | None], remark: str = "") -> None:
        """Show that ``step`` is done, 1 to ``total``, with its metrics as they go to ``metrics.jsonl``, and what a person
        should know of its judge."""
        self._done, self._phase = step, None
        self._marks.append((step, time.monotonic()))
        values = dict(main_metrics(metrics))
        for name, value in values.items():
            self._history.setdefault(name, []).append(value)
        self._signal, self._remark = _no_signal(metrics), remark
        evaluation = _evaluation(metrics)
        if evaluation:
            self._eval = f"{evaluation}  (step {step})"
        if self._view is not None:
            self._view.refresh()
            return
        if self._signal or remark or step % self.every == 0 or step in (1, self.total):
            parts = [f"step {step}/{self.total}", *(f"{n} {formatted(n, values[n])}" for n in PLAIN if n in values)]
            for name in ("judge/failed", "judge/absent"):
                parts += [f"{name} {n:.0f}"] if (n := _number(metrics, name)) else []
            if (seconds := _number(metrics, "time/step")) is not None:
                parts.append(f"{seconds:.1f} s")
            self._line("  ".join(parts))
            if self._signal:
                self._line(f"  no signal: {self._signal}")
            if remark:
                self._line(f"  {remark}")
        if evaluation:
            self._line(f"  held-out after step {step}: {evaluation}")

    def note(self, text: str) -> None:
        """Print a message that stays."""
        if self._cell:
            self._notes.append(text)
        else:
            self._line(text)

    def task(self, label: str, done: float, total: float) -> None:
        """Show a phase beside the steps (a warm start, an evaluation); it ends when ``done`` reaches ``total``."""
        new = self._phase is None or self._phase[0] != label
        self._phase = None if done >= total else (label, done, total)
        if self._view is not None:
            self._view.refresh()
        elif new or done >= total or time.monotonic() - self._phase_told > 10:
            self._phase_told = time.monotonic()
            self._line(f"{label} {100 * done / total if total else 100:.0f} %")

    def _line(self, text: str) -> None:
        self.out.print(Text(writable(text, self.out)), soft_wrap=True)

    def __rich_console__(
        self, console: rich.console.Console, _: rich.console.ConsoleOptions
    ) -> Iterator[RenderableType]:
        yield from self._render(console.width)

    def _render(self, width: int) -> Iterator[RenderableType]:
        yield from self._head(width)
        yield Text()
        if self.total:
            yield self._progress(f"step {self._done}/{self.total}", self._done, self.total, self._left(), width)
        if self._phase is not None:
            label, done, total = self._phase
            yield self._progress(label, done, total, "", width)
        if self._history:
            yield Text()
            yield self._table(2 if width >= 76 else 1, spark=width >= 48 and not self.out.options.ascii_only)
        if self._eval:
            yield Text("held-out  ", "dim", overflow="fold").append(self._eval, "not dim bold")
        if self._signal:
            yield Text(f"no signal: {self._signal}", "yellow", overflow="fold")
        if self._remark:
            yield Text(writable(self._remark, self.out), "yellow", overflow="fold")
        for note in self._notes:
            yield Text(writable(note, self.out), "dim", overflow="fold")

    def _head(self, width: int) -> Iterator[Text]:
        line = Text(overflow="fold")
        for name, value in self.header.items():
            item = Text.assemble((f"{name} ", "dim"), (writable(value, self.out), "bold"))
            if line and line.cell_len + 3 + item.cell_len > width:
                yield line
                line = Text(overflow="fold")
            line.append("   " if line else "").append(item)
        yield line

    def _progress(self, label: str, done: float, total: float, note: str, width: int) -> Table:
        row = Table.grid(padding=(0, 2, 0, 0), expand=True)
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True, justify="right")
        share = f"{100 * done / total:3.0f} %" if total else ""
        told = f"{share}  {note}" if note and width > 50 else share
        row.add_row(label, ProgressBar(total=max(total, 1), completed=done), told)
        return row

    def _left(self) -> str:
        marks = list(self._marks)
        if not marks:
            return ""
        (first, start), (last, end) = marks[0], marks[-1]
        if last >= self.total:
            return "done"
        if last == first:
            return ""
        left = (self.total - last) * (end - start) / (last - first) - (time.monotonic() - end)
        return f"{duration(max(0.0, left))} left"

    def _table(self, columns: int, spark: bool) -> Table:
        grid = Table.grid(padding=(0, 2, 0, 0))
        cells = []
        for name, values in list(self._history.items()):
            line = sparkline(values[-SPARK:]).ljust(SPARK) if spark else ""
            moved = formatted(name, values[-1] - values[-2], sign=True) if len(values) > 1 else ""
            now = Text(formatted(name, values[-1]), "bold", justify="right")
            cells.append((Text(name, "dim"), now, Text(line, "cyan"), Text(moved, "dim", justify="right")))
        for start in range(0, len(cells), columns):
            grid.add_row(*(part for cell in cells[start : start + columns] for part in cell))
        return grid


def final_table(summary: Mapping[str, Any], report: Path | None, *, out: rich.console.Console | None = None) -> None:
    """Print what training changed, from the contents of ``summary.json``, and where the report lies."""
    out = out or rich.console.Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, title="Held-out, before and after", title_justify="left", title_style="bold")
    table.add_column("")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    for key, a, b, change in compared(summary):
        table.add_row(key, a, Text(b, "bold"), change)
    out.print()
    if table.row_count:
        out.print(table)
    if (probed := _probed(summary)).row_count:
        out.print(probed)
    steps, seconds = _number(summary, "steps"), _number(summary, "seconds")
    told = [] if steps is None else [f"{steps:.0f} {'step' if steps == 1 else 'steps'}"]
    told += [] if seconds is None else [duration(seconds)]
    stopped = summary.get("stopped")
    if stopped and stopped != "finished":
        told.append(f"stopped: {stopped}")
    if told:
        out.print(Text(writable(", ".join(told), out)), soft_wrap=True)
    if best := best_step(summary):
        out.print(Text(writable(f"best: {best}", out)), soft_wrap=True)
    if report is not None:
        # One unbroken line, so that the path can be copied.
        out.print(Text(writable(f"report: {report}", out)), soft_wrap=True)


def _probed(summary: Mapping[str, Any]) -> Table:
    """What probes measured in the end; ``NAME@X`` stands in the column X."""
    after = summary.get("after") or {}
    places = [(key, *key.partition("@")[::2]) for key in after.get(MEASURED) or () if _number(after, key) is not None]
    columns = list(dict.fromkeys(x for _, _, x in places))
    table = Table(box=box.SIMPLE_HEAD, title="Measured by probes", title_justify="left", title_style="bold")
    for column in ("", *columns):
        table.add_column(column, justify="right" if table.columns else "left")
    said = {(name, x): f"{_number(after, key):.3g}" for key, name, x in places}
    for row in dict.fromkeys(name for _, name, _ in places):
        table.add_row(row, *(said.get((row, x), "") for x in columns))
    return table


def compared(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """What was measured before and after, from the contents of ``summary.json``: name, before, after, change."""
    before, after = summary.get("before") or {}, summary.get("after") or {}
    further = sorted({k for k in (*before, *after) if k.startswith(("accuracy/", "pass@"))})
    texts = ("loglik", "pairs/accuracy", "pairs/margin", "logp/chosen", "logp/rejected", "gain/chosen", "gain/rejected")
    for key in ("accuracy", *further, "distinct", "exploitability", *texts, "length", "format"):
        a, b = _number(before, key), _number(after, key)
        if a is not None or b is not None:
            yield key, _score(key, a), _score(key, b), "" if a is None or b is None else _score(key, b - a, sign=True)


def best_step(summary: Mapping[str, Any]) -> str:
    """Which step was best, from the contents of ``summary.json``; empty where none was looked for."""
    best = summary.get("best")
    if not isinstance(best, Mapping) or (value := _number(best, "value")) is None:
        return ""
    step = best.get("step")
    where = f"at step {step}, kept in best/" if step else "before the first step, so that none is kept"
    return f"{best.get('metric')} {value:.4g} {where}"


def duration(seconds: float) -> str:
    """``"8.2 s"``, ``"3 min 12 s"``, ``"2 h 05 min"``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, s = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{s} s"
    if minutes < 60:
        return f"{minutes} min {s:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def sparkline(values: list[float]) -> str:
    """One block character per value, from the lowest to the highest of them."""
    finite = [v for v in values if math.isfinite(v)]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return BARS[0] * len(finite)
    return "".join(BARS[min(7, int(8 * (v - low) / (high - low)))] for v in finite)


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def main_metrics(metrics: Mapping[str, float | None]) -> Iterator[tuple[str, float]]:
    """What the view shows of the metrics of a step, by the names that people read."""
    for name, keys, _ in MAIN:
        found = [v for key in keys if (v := _number(metrics, key)) is not None]
        if found:
            yield name, sum(found)


def formatted(name: str, value: float, sign: bool = False) -> str:
    """A number of the view, as it is written there."""
    spec = next(spec for known, _, spec in MAIN if known == name)
    return format(value, ("+" if sign else "") + spec)


DIGITS = {
    "length": 1, "distinct": 2, "exploitability": 3, "loglik": 3, "pairs/margin": 2, "logp/chosen": 2, "logp/rejected": 2,
    "gain/chosen": 2, "gain/rejected": 2,
}  # fmt: skip
"""Decimals of what is no share."""


def _score(key: str, value: float | None, sign: bool = False) -> str:
    if value is None:
        return "-"
    plus = "+" if sign else ""
    if key in DIGITS:
        return format(value, f"{plus}.{DIGITS[key]}f")
    return format(100 * value, f"{plus}.1f") + (" points" if sign else " %")


def _evaluation(metrics: Mapping[str, float | None]) -> str:
    names = sorted((k for k in metrics if k.startswith("eval/")), key=lambda k: (k != "eval/accuracy", k))
    shown = {name.removeprefix("eval/"): _number(metrics, name) for name in names}
    return "  ".join(f"{k} {v:{'.1f' if k == 'length' else '.2f'}}" for k, v in shown.items() if v is not None)


def _no_signal(metrics: Mapping[str, float | None]) -> str:
    if _number(metrics, "signal/groups") != 0:
        return ""
    why = {0.0: " (none was right: the task is too hard for the model as it is)", 1.0: " (all were right)"}
    accuracy = _number(metrics, "accuracy")
    return NO_SIGNAL if accuracy is None else NO_SIGNAL + why.get(accuracy, "")


def writable(text: str, out: rich.console.Console) -> str:
    """``text`` with a "?" for what the console cannot write, which would end the run, and for what could command a terminal."""
    text = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
    return text.encode(out.encoding, "replace").decode(out.encoding)
