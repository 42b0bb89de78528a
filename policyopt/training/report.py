"""The report of a run: one HTML file that needs nothing else, made from the files in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from policyopt.page import render_page, template_text, write_page
from policyopt.training.charts import (
    MAX_POINTS,
    Chart,
    judged,
    last_step,
    measured,
    number,
    other_charts,
    sections,
    written,
)
from policyopt.training.console import DIGITS, best_step, duration
from policyopt.training.intervals import difference, paired, wilson
from policyopt.training.logging import RunRecord, disk_errors, read_run

MAX_SAMPLES = 200
MAX_TEXT = 20_000
"""Characters of one text that the page holds; the rest stays in samples.jsonl."""
MAX_BYTES = 500_000
"""Of all samples in the page together."""
MAX_TOKENS = 4_000
"""Coloured tokens of one response; a longer one is shown as plain text."""


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a run, finished or not, and return its path.

    The page makes no network request, and has less than a megabyte: scripts, styles and data are inside. Whatever a model wrote is shown as
    text and never as markup; a content security policy lets no script run but those of the page.

    Raises :class:`UserError` where the folder is no run, a file of it is damaged, or the disk is full.
    """
    run = read_run(folder)
    path = run.folder / "report.html"
    with disk_errors(path):
        return write_page(path, render(run))


def render(run: RunRecord) -> str:
    """The page as text."""
    charts, others = sections(run), other_charts(run)
    samples = _readable(run.samples)
    return render_page(
        "report.html.j2",
        template_text("chart.js") + template_text("tokens.js") + template_text("report.js"),
        title=_title(run),
        verdict=_verdict(run),
        facts=_facts(run),
        warnings=_warnings(run),
        cards=_cards(run),
        ends_title="Before and after" if measured(run, "after") else "Latest evaluation",
        sections=charts,
        others=others,
        thinned=len(run.metrics) > MAX_POINTS,
        numbers=_numbers(run.metrics),
        samples=samples,
        sample_total=len(run.samples),
        config=run.config_text,
        data={
            "charts": [_drawn(c) for c in [*(c for _, cs in charts for c in cs), *others]],
            "samples": samples,
        },
    )


def _readable(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """As many samples as the page shows and has room for, evenly spread."""
    most = MAX_SAMPLES
    while True:
        found = [readable(s) for s in pick_samples(samples, most)]
        size = sum(len(json.dumps(s)) for s in found)
        if size <= MAX_BYTES or most == 1:
            return found
        most = max(1, min(most - 1, int(len(found) * MAX_BYTES / size)))


def pick_samples(samples: Sequence[Mapping[str, Any]], most: int = MAX_SAMPLES) -> list[Mapping[str, Any]]:
    """At most ``most`` samples, an equal share of each phase, evenly spaced within it, in their order."""
    phases: dict[Any, list[int]] = {}
    for i, s in enumerate(samples):
        phases.setdefault(s.get("phase"), []).append(i)
    kept: list[int] = []
    # The smallest phase first: what it leaves of its share goes to the others.
    for left, rows in zip(range(len(phases), 0, -1), sorted(phases.values(), key=len), strict=True):
        n = min(len(rows), (most - len(kept)) // left)
        kept += [rows[i * len(rows) // n] for i in range(n)]
    return [samples[i] for i in sorted(kept)]


@dataclass(frozen=True)
class _Card:
    """A measure before and after: texts to show, and for a share the ends of its bars in percent."""

    label: str
    before: str
    after: str
    change: str
    note: str
    bars: tuple[tuple[str, str, float, float, float], ...] = ()
    """(phase, its interval in words, low, middle, high)"""


def _cards(run: RunRecord) -> list[_Card]:
    before, after, last = _ends(run)
    pass_at = sorted({k for k in (*before, *after) if k.startswith("pass@")})
    labels = {
        "accuracy": "Accuracy",
        "distinct": "Different right answers",
        "exploitability": "Exploitability",
        "length": "Mean length",
        "format": "Well formed",
        "pairs/accuracy": "Pairs in the right order",
        "pairs/margin": "Margin of pairs",
    } | {k: k for k in pass_at}
    labels["accuracy/decode"] = "Accuracy with decode"
    notes = {
        "accuracy": "right at the first answer",
        "accuracy/decode": "right at the first answer of the recipe's decode program",
        "distinct": "among the samples of a question",
        "exploitability": "what the best opponent wins above one half",
        "length": "tokens per response",
        "format": "the judge can read it",
        "pairs/accuracy": "the chosen text has gained more",
        "pairs/margin": "nats, over the reference where there is one",
    }
    notes |= {k: f"at least one of {k.removeprefix('pass@')} is right" for k in pass_at}
    cards = []
    kinds = ("distinct", "exploitability", "pairs/accuracy", "pairs/margin", "length", "format")
    for key in ("accuracy", "accuracy/decode", *pass_at, *kinds):
        a, b = number(before.get(key)), number(after.get(key))
        if a is None and b is None:
            continue
        bars = _bars(("before", before), (last, after)) if key == "accuracy" else ()
        cards.append(
            _Card(
                labels[key], "" if a is None else _scored(key, a), _scored(key, b), _change(key, a, b), notes[key], bars
            )
        )
    return cards


def _scored(key: str, x: float | None) -> str:
    return f"{x:.{DIGITS[key]}f}" if key in DIGITS and x is not None else written(x, "percent")


def _change(key: str, a: float | None, b: float | None) -> str:
    if a is None or b is None:
        return ""
    text = f"{b - a:+.{DIGITS[key]}f}" if key in DIGITS else f"{100 * (b - a):+.1f} points"
    return text.replace("-", "−")


def _bars(*ends: tuple[str, Mapping[str, Any]]) -> tuple[tuple[str, str, float, float, float], ...]:
    bars = []
    for phase, found in ends:
        p, n = number(found.get("accuracy")), judged(found)
        if p is None or not n:
            continue
        low, high = wilson(p, n)
        told = f"95 % interval {100 * low:.1f} to {100 * high:.1f} %, {n} prompts"
        bars.append((phase, told, 100 * low, 100 * p, 100 * high))
    return tuple(bars)


def _verdict(run: RunRecord) -> str:
    before, after = measured(run, "before"), measured(run, "after")
    a, b = number(before.get("accuracy")), number(after.get("accuracy"))
    if a is None or b is None:
        return ""
    moved = f"from {written(a, 'percent')} to {written(b, 'percent')}"
    found = _interval(a, before, b, after)
    if found is None:
        return f"Held-out accuracy went {moved}."
    low, high, how = found
    interval = f"{100 * (b - a):+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}".replace("-", "−")
    interval += f", {how}"
    if low <= 0 <= high:
        return f"No difference seen: held-out accuracy went {moved} ({interval})."
    return f"Held-out accuracy {'rose' if b > a else 'fell'} {moved} ({interval})."


def _interval(
    a: float, before: Mapping[str, Any], b: float, after: Mapping[str, Any]
) -> tuple[float, float, str] | None:
    """The ends of the interval for the change, and how it was found: question by question, where the run kept what came of
    each."""
    first, second = before.get("correct"), after.get("correct")
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = [(bool(x), bool(y)) for x, y in zip(first, second, strict=True) if None not in (x, y)]
        whole = len(pairs) == len(first) - first.count(None) == len(second) - second.count(None)
        if pairs and whole:  # else the shares are over other questions than the pairs
            return *paired([x for x, _ in pairs], [y for _, y in pairs]), f"paired over the same {len(pairs)} questions"
    n, m = judged(before), judged(after)
    if not n or not m:
        return None
    return *difference(a, n, b, m), f"over {n} and {m} responses taken as independent"


def _ends(run: RunRecord) -> tuple[Mapping[str, Any], Mapping[str, Any], str]:
    """What was measured before and after, and the name of the latter: an unfinished run has its last evaluation."""
    before, after = measured(run, "before"), measured(run, "after")
    rows = [row for row in run.metrics if number(row.get("eval/accuracy")) is not None]
    if after or not rows:
        return before, after, "after"
    last = {k.removeprefix("eval/"): v for k, v in rows[-1].items() if k.startswith("eval/")}
    return before, {**last, "n": judged(before)}, "latest"


def _named(run: RunRecord, key: str) -> str:
    value = run.summary.get(key, run.config.get(key))
    return value if isinstance(value, str) else ""


def _title(run: RunRecord) -> str:
    method, task = _named(run, "method"), _named(run, "task")
    return f"{method} on {task}" if method and task else method or f"Run {run.folder.resolve().name}"


def _judge(run: RunRecord) -> str:
    """The judge, and why it was taken; an unfinished run has both in its configuration."""
    found = run.config.get("resolved")
    found = run.summary or (found if isinstance(found, dict) else {})
    name, reason = (str(found.get(key) or "") for key in ("judge", "judge_reason"))
    return f"{name}: {reason}" if name and reason else name


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    s = run.summary
    steps = last_step(run)
    seconds = number(s.get("seconds"))
    if seconds is None:
        seconds = sum(number(row.get("time/step")) or 0 for row in run.metrics)
    seed = s.get("seed", run.config.get("seed"))
    facts = [
        ("Method", _named(run, "method")),
        ("Model", _named(run, "model")),
        ("Task", _named(run, "task")),
        ("Judge", _judge(run)),
        ("Seed", "" if seed is None else str(seed)),
        ("Steps", f"{steps:,.0f}"),
        ("Time", duration(seconds) if seconds else ""),
        ("Responses", written(number(s.get("responses")), "integer") if "responses" in s else ""),
        ("Tokens", written(number(s.get("tokens")), "integer") if "tokens" in s else ""),
        ("Best", best_step(s)),
        ("Ended", str(s.get("stopped") or "") if s else "not finished"),
        ("Version", str(s.get("version") or "")),
    ]
    return [(name, value) for name, value in facts if value]


def _warnings(run: RunRecord) -> list[str]:
    """What a reader should know before believing the curves."""
    rows, found = [row for row in run.metrics if number(row.get("step")) != 0], []  # at step 0 nothing is trained
    if not run.summary:
        found.append("This run has no summary: it is still going, or was stopped before it could write one.")
    elif run.summary.get("stopped") not in (None, "finished"):
        found.append(f"The run did not reach its last step: {run.summary['stopped']}.")
    if not rows:
        found.append("No step has been logged yet.")
    silent = sum(number(row.get("signal/groups")) == 0 for row in rows)
    if silent:
        found.append(
            f"In {silent} of {len(rows)} steps all responses to each prompt got the same reward: nothing to learn from."
        )
    if skipped := sum((number(row.get("update/skipped")) or 0) > 0 for row in rows):
        found.append(
            f"In {skipped} of {len(rows)} steps an update was skipped because the loss or gradient was not finite."
        )
    for name, what in (
        ("judge/failed", "the judge failed on some responses"),
        ("judge/absent", "no judge applied to some"),
    ):
        if steps := sum((number(row.get(name)) or 0) > 0 for row in rows):
            found.append(f"In {steps} of {len(rows)} steps {what}: they have no reward, and were not trained on.")
    for phase in ("before", "after"):
        if failed := number(measured(run, phase).get("judge/failed")):
            found.append(
                f"In the evaluation {phase} training the judge failed on {failed:.0f} responses; they count in no share."
            )
    mismatch = [m for row in rows if (m := number(row.get("mismatch/mean"))) is not None]
    if mismatch and max(mismatch) > 1e-2:
        found.append(
            f"Sampler and trainer disagree by up to {max(mismatch):.2g} nats per token, on average over a step: "
            "training is not on-policy."
        )
    return found


def _numbers(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, str, str]]:
    """(metric, first, last, lowest, highest) of every metric, as text."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and (v := number(value)) is not None:
                columns.setdefault(name, []).append(v)
    return [
        (name, written(v[0]), written(v[-1]), written(min(v)), written(max(v))) for name, v in sorted(columns.items())
    ]


def _drawn(chart: Chart) -> dict[str, Any]:
    return asdict(chart)


def readable(sample: Mapping[str, Any], most: int = MAX_TEXT) -> dict[str, Any]:
    """A sample as a page needs it: known fields only, each text cut to so many characters."""
    shown: dict[str, Any] = {
        "step": number(sample.get("step")),
        "phase": str(sample.get("phase") or ""),
        "id": str(sample.get("id") or ""),
        "prompt": _cut(_prompt(sample.get("prompt")), most),
        "response": _cut(_text(sample.get("response")), most),
        "answer": _cut(_text(sample.get("answer")), most),
        "reason": _cut(_text(sample.get("reason")), most),
        "reward": number(sample.get("reward")),
        "correct": bool(sample.get("correct")),
        "rewarded": sample.get("score", 0) is not None,
        "failed": bool(sample.get("failed")),
        "length": number(sample.get("length")),
        "truncated": bool(sample.get("truncated")),
    }
    pieces, weights = sample.get("pieces"), sample.get("weights")
    if isinstance(pieces, list) and isinstance(weights, list) and 0 < len(pieces) == len(weights) <= MAX_TOKENS:
        values = [number(w) for w in weights]
        shown["pieces"] = [_text(p) for p in pieces]
        shown["weights"] = [None if w is None else float(f"{w:.3g}") for w in values]
    return shown


def _text(x: Any) -> str:
    return "" if x is None else str(x)


def _prompt(x: Any) -> str:
    """A prompt as text; of chat messages, the roles are named where there is more than the user's one."""
    if not isinstance(x, list):
        return _text(x)
    messages = [m if isinstance(m, dict) else {"content": m} for m in x]
    if len(messages) == 1:
        return _text(messages[0].get("content"))
    return "\n\n".join(f"{_text(m.get('role'))}: {_text(m.get('content'))}" for m in messages)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[:most]}\n[{len(text) - most:,} more characters in samples.jsonl]"
