"""``policyopt eval``: measure a model on a task."""

from __future__ import annotations

import dataclasses
import json

from pydantic.dataclasses import dataclass

from policyopt.cli.common import Count, ModelOptions, Whole, need_model, options_of
from policyopt.data import need_task


@dataclass(frozen=True)
class EvalOptions(ModelOptions):
    """Measure a model on the held-out questions of a task: greedy accuracy, pass@k, length, format."""

    prior: str | None = None
    """Prior prompt before every question: think, plan, code, knowledge, examples, or a text of your own."""
    prompts: Count = 256
    """How many held-out questions."""
    samples: Whole = 4
    """Sampled responses per question for pass@k; 0 for none."""
    k: Count = 4
    """The k of pass@k; at most ``samples``."""
    json: bool = False
    """Print the numbers as one JSON object."""


def run(args: list[str]) -> int:
    """Measure a model and print the numbers. Returns the exit code."""
    options = options_of(EvalOptions(), args, "eval")
    need_task(options.task)
    need_model(options.model)
    from policyopt.training.run import evaluate_model

    fields = {f.name: getattr(options, f.name) for f in dataclasses.fields(options) if f.name != "json"}
    scores = evaluate_model(**fields).summary
    if options.json:
        print(json.dumps(scores))
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("measure", "value")
    for name, value in scores.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.1f} tokens" if name == "length" else f"{value:.1%}")
    console = Console(highlight=False)
    console.print(Text(f"{options.model} on {options.task}, {scores['n']} held-out questions"), soft_wrap=True)
    console.print(table)
    return 0
