"""``policyopt eval``: measure a model on a task."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from policyopt.cli.common import Count, Fraction, Heat, ModelOptions, Share, Whole, need_model, options_of
from policyopt.data import need_task


@dataclass(frozen=True)
class EvalOptions(ModelOptions):
    """Measure a model on a file of questions, or on the held-out ones of a task: greedy accuracy, pass@k, length, format."""

    prior: str | None = None
    """Prior prompt before every question: think, plan, code, knowledge, examples, or a text of your own."""
    prompts: Count | None = None
    """How many questions; unset: all rows of a dataset, and 256 held-out questions of a task that makes them."""
    samples: Whole = 4
    """Sampled responses per question for pass@k; 0 for none."""
    k: Count = 4
    """The k of pass@k; at most ``samples``."""
    max_failed: Fraction = 0.2
    """The evaluation stops when the judge fails on a larger share of the responses."""
    temperature: Annotated[Heat, Field(gt=0)] = 1.0
    """Temperature of the sampled responses."""
    top_p: Share = 1.0
    """Sample them from the fewest likeliest tokens whose probability is at least this together; 1 samples from all."""
    json: bool = False
    """Print the numbers as one JSON object."""


def run(args: list[str]) -> int:
    """Measure a model and print the numbers. Returns the exit code."""
    options = options_of(EvalOptions(), args, "eval")
    need_task(options.task)
    need_model(options.model)
    from policyopt.training.measure import evaluate

    fields = {f.name: getattr(options, f.name) for f in dataclasses.fields(options) if f.name != "json"}
    found = evaluate(**fields)
    scores = found.summary
    if options.json:
        print(json.dumps(scores))
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from policyopt.training.console import writable

    table = Table("measure", "value")
    for name, value in scores.items():
        if value is None:
            table.add_row(name, "-")
        elif isinstance(value, float):
            table.add_row(name, f"{value:.1f} tokens" if name == "length" else f"{value:.1%}")
    console = Console(highlight=False)
    console.print(Text(f"{options.model} on {options.task}, {scores['n']} questions"), soft_wrap=True)
    console.print(table)
    if found.remark:
        console.print(Text(writable(found.remark, console)), soft_wrap=True)
    return 0
