"""The card of a trained model: what it is, what it was trained on, and what training changed, in ``README.md``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from policyopt.index import Entry, index
from policyopt.judging.names import read
from policyopt.training.charts import number, written
from policyopt.training.config import TrainConfig
from policyopt.training.logging import read_run

ROWS = 12
"""So many evaluations of the course are shown, evenly spaced."""


def write_card(folder: Path, config: TrainConfig, summary: Mapping[str, Any]) -> Path:
    """Write ``README.md`` into the folder of a model beside which the log of its run lies, and return its path.

    Files and folders of this machine go by their last name alone, because a card is made to be published.
    """
    path = folder / "README.md"
    path.write_text(card(folder.name, config, summary, _course(folder.parent)), encoding="utf-8")
    return path


def _judge(config: TrainConfig, summary: Mapping[str, Any]) -> str:
    if config.judge is None:
        return f"`{summary.get('judge')}` ({summary.get('judge_reason', 'the one of the task')})"
    if isinstance(config.judge, str):
        return f"`{shown(config.judge)}`"
    return ", ".join(f"`{one.name}={shown(one.judge)}`, weight {one.weight:g}" for one in read(config.judge))


def card(kind: str, config: TrainConfig, summary: Mapping[str, Any], course: list[tuple[int, float]]) -> str:
    """The card as text: of the folder ``best`` or ``model``, with ``course`` the accuracy on held-out questions by step."""
    method, model, task = config.recipe.name, shown(config.model), shown(config.task)
    about = index().get(method)
    facts = {
        "Method": f"`{method}`{_about(about)}",
        "Start": f"`{model}`",
        "Data": f"`{task}`",
        "Judge": _judge(config, summary),
        "Steps": f"{summary['steps']} of {config.batch} responses, seed {config.seed}{_of_step(kind, summary)}",
        "Ended": shown(str(summary["stopped"])),
        "Written by": f"policyopt {summary['version']}, torch {summary['torch']}",
    }
    lines = [_front(config, about).rstrip(), "", f"# {method} on {task}", ""]
    lines += [f"- **{name}**: {value}" for name, value in facts.items()]
    lines += ["", "## Before and after", "", *_numbers(summary)]
    if len(course) > 2:
        lines += [
            "",
            "Held-out accuracy by step: " + ", ".join(f"{s}: {written(a, 'percent')}" for s, a in course) + ".",
        ]
    lines += ["", "The curves are in `tensorboard/` and in `report.html`, in the folder of the run."]
    recipe = yaml.safe_dump(_shown_all(config.recipe.to_dict()), sort_keys=False).rstrip()
    lines += ["", "## Recipe", "", "```yaml", recipe, "```", *_citation(about)]
    return "\n".join(lines) + "\n"


def shown(name: str) -> str:
    """A name without what it tells of this machine: of paths from the root the last piece."""
    return ",".join(Path(n).name if n.startswith(("/", "~")) else n for n in name.split(","))


def _shown_all(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {k: _shown_all(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_shown_all(v) for v in x]
    return shown(x) if isinstance(x, str) else x


def _front(config: TrainConfig, about: Entry | None) -> str:
    """What the hub reads of a card."""
    from huggingface_hub import ModelCardData

    ids = re.compile(r"[\w.-]+/[\w.-]+")
    base = config.model if ids.fullmatch(config.model) and not Path(config.model).exists() else None
    data = config.task.split(":")[0]
    published = ids.fullmatch(data) and not Path(data).exists() and not data.endswith((".jsonl", ".parquet"))
    tags = ["policyopt", "reinforcement-learning", config.recipe.name]
    tags += [f"arxiv:{about.arxiv}"] if about is not None and about.arxiv else []
    facts = ModelCardData(
        base_model=base, datasets=data if published else None, library_name="transformers",
        pipeline_tag="text-generation", tags=tags,
    )  # fmt: skip
    return f"---\n{facts.to_yaml()}\n---"


def _about(about: Entry | None) -> str:
    return "" if about is None else f": {about.summary.replace('``', '`')}"


def _of_step(kind: str, summary: Mapping[str, Any]) -> str:
    best = summary.get("best")
    if kind != "best" or not best:
        return ""
    return f"; this is the model after step {best['step']}, where {best['metric']} was best ({best['value']:.4g})"


def _numbers(summary: Mapping[str, Any]) -> Iterator[str]:
    """A table of what was measured before and after, on the same held-out examples."""
    before, after = (summary.get(phase) or {} for phase in ("before", "after"))
    n = after.get("n") or before.get("n")
    yield f"On the same {n} held-out examples:" if n else "On the same held-out examples:"
    yield from ("", "| measure | before | after |", "| --- | ---: | ---: |")
    for name in dict.fromkeys((*before, *after)):
        values = [number(found.get(name)) for found in (before, after)]
        if name != "n" and any(v is not None for v in values):
            share = name in ("accuracy", "format", "pairs/accuracy") or name.startswith(("pass@", "accuracy/"))
            cells = ["–" if v is None else written(v, "percent") if share else f"{v:.4g}" for v in values]
            yield f"| {name} | {' | '.join(cells)} |"


def _course(run: Path) -> list[tuple[int, float]]:
    rows = [(int(r["step"]), a) for r in read_run(run).metrics if (a := number(r.get("eval/accuracy"))) is not None]
    most = min(len(rows), ROWS)
    return [rows[i * (len(rows) - 1) // max(1, most - 1)] for i in range(most)]


def _citation(about: Entry | None) -> Iterator[str]:
    if about is None or not about.arxiv:
        return
    yield from (
        "",
        "## Citation",
        "",
        f"The method is of [arXiv:{about.arxiv}](https://arxiv.org/abs/{about.arxiv}):",
        "",
    )
    fields = f"eprint = {{{about.arxiv}}}, archivePrefix = {{arXiv}}, url = {{https://arxiv.org/abs/{about.arxiv}}}"
    yield from ("```bibtex", f"@misc{{{about.name}, {fields}}}", "```")
