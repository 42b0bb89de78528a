"""The report over all stages of a plan: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from policyopt import page
from policyopt.data.answered import ORIGIN
from policyopt.files import read_json
from policyopt.stages.answers import are_written
from policyopt.stages.plan import ANSWERS, STAGE, Plan, Stage
from policyopt.training.charts import Chart, Series, judged, last_step, measured, number, written
from policyopt.training.console import duration
from policyopt.training.intervals import paired
from policyopt.training.logging import RunRecord, disk_errors, read_run
from policyopt.training.plans import Colour
from policyopt.training.report import readable

NAME = "report.html"
CURVES = (
    Chart("eval/accuracy", "Held-out accuracy", "Greedy responses to questions that no stage is trained on.", (), "percent", unit="share of responses"),
    Chart("eval/length", "Held-out length", "Mean tokens of the same responses.", (), unit="tokens"),
    Chart("reward/mean", "Reward in training", "Mean over the responses of a step.", (), unit="reward"),
    Chart("pairs/accuracy", "Pairs in the right order", "Share of a step's pairs of which the chosen text has gained more.", (), "percent", unit="share of pairs"),
    Chart("length/mean", "Length in training", "Mean tokens of the rows of a step.", (), unit="tokens"),
    Chart("entropy", "Entropy", "Mean over the tokens of a step.", (), unit="nats"),
)  # fmt: skip
"""The charts, each called after its metric."""
COLOURS: tuple[Colour, ...] = ("main", "second", "green", "violet", "teal", "pink", "olive", "fourth", "fifth")
"""Of the stages, in their order."""
QUESTIONS = 8
"""How many held-out questions are shown with the answers of all stages."""


@dataclass(frozen=True)
class _Told:
    """A stage as a row of the table."""

    number: int
    name: str
    method: str
    task: str
    gets: str
    link: str
    state: str
    accuracy: tuple[str, str]
    length: tuple[str, str]
    leaves: str


def write_report(plan: Plan, out: Path) -> Path:
    """Write ``report.html`` into the folder of a plan, whatever has come of it so far, and return its path.

    Raises :class:`~policyopt.errors.UserError` where the disk is full or a file is damaged.
    """
    path = out / NAME
    with disk_errors(path):
        return page.write_page(path, render(plan, out))


def render(plan: Plan, out: Path) -> str:
    """The page as text."""
    runs = {s.name: _record(plan, s, out) for s in plan.stages}
    charts = [c for chart in CURVES if (c := _drawn(chart, runs)) is not None]
    there = [r for r in runs.values() if r is not None]
    seconds = sum(number(r.summary.get("seconds")) or 0 for r in there)
    facts = [
        ("Stages", f"{sum(bool(r.summary) for r in there)} of {len(plan.stages)}"),
        ("Steps", f"{sum(last_step(r) for r in there):,.0f}"),
        ("Time", duration(seconds) if seconds else ""),
        ("Model", plan.stages[0].config.model),
        ("Seed", str(plan.stages[0].config.seed)),
    ]
    return page.render_page(
        "plan.html.j2",
        page.template_text("chart.js") + page.template_text("plan.js"),
        title=f"Plan {plan.name}",
        verdict=_verdict(plan, runs),
        facts=[(name, value) for name, value in facts if value],
        stages=[_told(i, s, runs[s.name], plan.folder(out, s.name)) for i, s in enumerate(plan.stages, 1)],
        charts=charts,
        questions=_questions(plan, runs),
        plan=plan.to_yaml(),
        data={"charts": [asdict(c) for c in charts]},
    )


def _record(plan: Plan, stage: Stage, out: Path) -> RunRecord | None:
    """What the run of a stage has left; ``None`` before it has begun."""
    folder = plan.folder(out, stage.name)
    there = any((folder / name).is_file() for name in ("config.yaml", "metrics.jsonl", "summary.json"))
    return read_run(folder) if there else None


def _told(place: int, stage: Stage, run: RunRecord | None, folder: Path) -> _Told:
    model = stage.config.model
    gets = [f"model of {model.removeprefix(STAGE)}"] if model.startswith(STAGE) else []
    if stage.rows is not None:
        gets.append(f"{stage.rows.form} of {stage.rows.of}" + (", by length" if stage.rows.by == "length" else ""))
    if stage.merge is not None:
        gets = [f"models of {', '.join(stage.merge.of)}"]
    before, after = ({}, {}) if run is None else (measured(run, "before"), measured(run, "after"))
    return _Told(
        place, stage.name, f"merge ({stage.merge.way})" if stage.merge else stage.config.recipe.name, stage.config.task,
        "; ".join(gets), f"{quote(folder.name)}/{NAME}" if (folder / NAME).is_file() else "", _state(run),
        tuple(written(number(x.get("accuracy")), "percent") for x in (before, after)),  # type: ignore[arg-type]
        tuple(written(number(x.get("length"))) for x in (before, after)),  # type: ignore[arg-type]
        _leaves(folder / ANSWERS, stage),
    )  # fmt: skip


def _state(run: RunRecord | None) -> str:
    if run is None:
        return "not begun"
    ended = str(run.summary.get("stopped") or "") or "not ended"
    seconds, steps = number(run.summary.get("seconds")), last_step(run)
    told = [ended, *([f"{steps:.0f} steps"] if steps else []), *([duration(seconds)] if seconds else [])]
    return ", ".join(told)


def _leaves(folder: Path, stage: Stage) -> str:
    if stage.answers is None:
        return "model"
    drawn = read_json(folder / ORIGIN).get("drawn") if are_written(folder) else None
    return "model" if drawn is None else f"model, {drawn['samples']} × {drawn['prompts']} answers"


def _drawn(chart: Chart, runs: Mapping[str, RunRecord | None]) -> Chart | None:
    """A chart of a metric over the steps of all stages, each in its own colour; ``None`` where none has it."""
    series, past = [], 0.0
    for i, (name, run) in enumerate(runs.items()):
        if run is None:
            continue
        points = dict(_points(run, chart.id))
        if points:
            x = [past + step for step in sorted(points)]
            series.append(Series(name, x, [points[s] for s in sorted(points)], COLOURS[i % len(COLOURS)]))
        past += last_step(run)
    note = f"{chart.note} Steps are counted through all stages."
    return replace(chart, id=chart.id.replace("/", "-"), note=note, series=tuple(series)) if series else None


def _points(run: RunRecord, metric: str) -> Iterator[tuple[float, float]]:
    for row in run.metrics:
        step, value = number(row.get("step")), number(row.get(metric))
        if step is not None and value is not None:
            yield step, value
    if metric.startswith("eval/"):
        for phase, step in (("before", 0.0), ("after", last_step(run))):
            value = number(measured(run, phase).get(metric.removeprefix("eval/")))
            if value is not None:
                yield step, value


def _asked(run: RunRecord) -> list[Any]:
    """The held-out questions that a run was asked at its end, in their order."""
    return [s.get("prompt") for s in run.samples if s.get("phase") == "after"]


def _verdict(plan: Plan, runs: Mapping[str, RunRecord | None]) -> str:
    """Held-out accuracy from the first stage that is measured on what the last one is."""
    ended = [(s, r) for s in plan.stages if (r := runs[s.name]) is not None and measured(r, "after")]
    if not ended:
        return ""
    last, final = ended[-1]
    first, start = next((s, r) for s, r in ended if _asked(r) == _asked(final))
    before = measured(start, "before") or measured(start, "after")
    after = measured(final, "after")
    a, b = number(before.get("accuracy")), number(after.get("accuracy"))
    if a is None or b is None:
        return ""
    text = f"Held-out accuracy went from {written(a, 'percent')} before {first.name} to {written(b, 'percent')} after {last.name}"
    x, y = before.get("correct"), after.get("correct")
    if isinstance(x, list) and isinstance(y, list) and len(x) == len(y) == judged(before) == judged(after):
        low, high = (100 * v for v in paired([bool(v) for v in x], [bool(v) for v in y]))
        interval = f"{100 * (b - a):+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}".replace("-", "−")
        text += f" ({interval}, over the same {len(x)} questions)"
    return text + "."


def _questions(plan: Plan, runs: Mapping[str, RunRecord | None]) -> list[dict[str, Any]]:
    """Held-out questions that the most stages were asked, with what each answered at its end; first those that not all got right."""
    said: dict[str, dict[str, dict[str, Any]]] = {}
    for stage in plan.stages:
        run = runs[stage.name]
        for sample in run.samples if run is not None else ():
            if sample.get("phase") == "after":
                shown = readable(sample, 2_000)
                said.setdefault(shown["id"], {})[stage.name] = shown
    most = max((len(found) for found in said.values()), default=0)
    asked = [found for found in said.values() if len(found) == most]
    kept = sorted(asked, key=lambda found: len({s["correct"] for s in found.values()}), reverse=True)[:QUESTIONS]
    return [
        {"prompt": next(iter(found.values()))["prompt"], "answers": [{"stage": name, **s} for name, s in found.items()]}
        for found in kept
    ]
