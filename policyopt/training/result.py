"""A run as Python sees it: what it left behind, its curves and samples as tables, and how a notebook shows it."""

from __future__ import annotations

from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policyopt.errors import UserError, nearest
from policyopt.files import need_run
from policyopt.training.charts import Chart, Series, number, sections
from policyopt.training.console import compared, duration, formatted, main_metrics
from policyopt.training.logging import RunRecord, read_run, read_summary
from policyopt.training.plot import Figure, line

if TYPE_CHECKING:
    from pandas import DataFrame

    from policyopt.models.load import Policy

SECTIONS = 3
"""How many sections of the report :meth:`Result.plot` shows."""


class Result:
    """A run: a finished one, one that goes on, or one that ended halfway. It reads the run's folder when it is asked."""

    def __init__(self, out: Path, policy: Policy | None = None) -> None:
        self.out = out
        """Folder of the run: ``model/``, ``report.html``, ``metrics.jsonl``, ``samples.jsonl``, ``summary.json``,
        ``checkpoints/``."""
        self._policy = policy

    @cached_property
    def policy(self) -> Policy:
        """The trained policy; loaded from ``model/`` where this is not the process that trained it.

        Raises :class:`~policyopt.errors.UserError` where the run has not ended and there is none.
        """
        from policyopt.models.load import load_policy

        if self._policy is not None:
            return self._policy
        if not (self.out / "model").is_dir():
            raise UserError(
                f"{self.out}: the run has not ended, so that there is no model yet: go on with train(resume=...)"
            )
        return load_policy(str(self.out / "model"))

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds: accuracy, length, format and pass@k before and after, steps, seconds. Empty where the
        run has not ended."""
        return read_summary(self.out / "summary.json")

    @property
    def config(self) -> dict[str, Any]:
        """What ``config.yaml`` holds."""
        return read_run(self.out).config

    @property
    def metrics(self) -> DataFrame:
        """The metrics, one row for each step, by ``step``; row 0 is the evaluation before the first one."""
        from pandas import DataFrame

        found = DataFrame(read_run(self.out).metrics)
        return found.set_index("step") if len(found) else found

    @property
    def samples(self) -> DataFrame:
        """The responses that the log holds, in the order in which they were drawn, with their rewards and token weights."""
        from pandas import DataFrame

        return DataFrame(read_run(self.out).samples)

    @property
    def report(self) -> Path:
        """The report, written anew where the run has not ended."""
        from policyopt.training.report import write_report

        path = self.out / "report.html"
        return path if path.is_file() and self.summary else write_report(self.out)

    def plot(self, *metrics: str) -> Figure:
        """Curves: those that say most, or one for each of these metrics of the log. A notebook shows them.

        Raises :class:`~policyopt.errors.UserError` for a metric that the log does not have.
        """
        run = read_run(self.out)
        if not metrics:
            return Figure(tuple(c for _, charts in sections(run)[:SECTIONS] for c in charts))
        return Figure(tuple(_curve(run, name) for name in metrics))

    def __repr__(self) -> str:
        moved = [f"{key} {a} -> {b}" for key, a, b, _ in compared(self.summary)][:1]
        return f"Result({', '.join([str(self.out), self._state(), *moved])})"

    def _state(self) -> str:
        summary = self.summary
        if not summary:
            return f"not ended, {max((row.get('step', 0) for row in read_run(self.out).metrics), default=0)} steps"
        ended = str(summary.get("stopped") or "finished")
        steps, seconds = number(summary.get("steps")) or 0, number(summary.get("seconds")) or 0
        return f"{ended} after {steps:.0f} {'step' if steps == 1 else 'steps'}, {duration(seconds)}"

    def _repr_html_(self) -> str:
        run = read_run(self.out)
        rows = "".join(
            f"<tr><th>{escape(key)}</th><td>{escape(a)}</td><td><b>{escape(b)}</b></td><td>{escape(change)}</td></tr>"
            for key, a, b, change in compared(run.summary)
        )
        head = "<tr><th></th><th>before</th><th>after</th><th>change</th></tr>"
        held = f"<table><caption>held-out</caption>{head}{rows}</table>" if rows else ""
        curves = "".join(_row(name, y) for name, y in _main_curves(run).items())
        trained = f"<table><caption>training</caption>{curves}</table>" if curves else ""
        link = self.out / "report.html"
        seen = f' · <a href="{escape(str(link))}" target="_blank">report</a>' if link.is_file() else ""
        about = " on ".join(str(run.summary[k]) for k in ("method", "task") if k in run.summary)
        return (
            f"<div><b>{escape(about or 'run')}</b> · {escape(self._state())} · <code>{escape(str(self.out))}</code>{seen}"
            f'<div style="display:flex;gap:2em;flex-wrap:wrap;align-items:flex-start">{held}{trained}</div></div>'
        )


def load_run(folder: str | Path) -> Result:
    """The run in a folder, finished or not.

    Raises :class:`~policyopt.errors.UserError` for a folder that is none of a run.
    """
    need_run(Path(folder))
    return Result(Path(folder))


def _curve(run: RunRecord, name: str) -> Chart:
    found = {
        x: y
        for row in run.metrics
        if (x := number(row.get("step"))) is not None and (y := number(row.get(name))) is not None
    }
    if not found:
        known = sorted({key for row in run.metrics for key in row} - {"step"})
        raise UserError(f"{name}: the log of {run.folder} has no such metric; {nearest(name, known)}")
    return Chart(name, name, "", (Series(name, [*found], [*found.values()]),))


def _main_curves(run: RunRecord) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in run.metrics:
        for name, value in main_metrics(row) if row.get("step") else ():
            found.setdefault(name, []).append(value)
    return found


def _row(name: str, y: list[float]) -> str:
    ends = f"<td>{formatted(name, y[0])}</td><td>{line(y)}</td><td>{formatted(name, y[-1])}</td>"
    return f"<tr><th>{escape(name)}</th>{ends}</tr>"
