"""``policyopt lengths``: how long a model's responses are."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from policyopt.cli.common import Count, Heat, ModelOptions, Share, need_model, options_of
from policyopt.data import need_task


@dataclass(frozen=True)
class LengthsOptions(ModelOptions):
    """How long a model's responses to questions of a task are: mean, spread and percentiles for each. Nothing is judged."""

    prompts: Count = 32
    """How many questions: rows of a dataset, held-out questions of a task that makes them."""
    samples: Count = 10
    """Responses to each."""
    temperature: Heat = 1.0
    """Sampling temperature; 0 is greedy."""
    top_p: Share = 1.0
    """Sample from the fewest likeliest tokens whose probability is at least this together; 1 samples from all."""
    top_k: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Sample from so many likeliest tokens; unset: from all."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Sample from tokens that are at least this share as likely as the likeliest; 0 samples from all."""
    json: bool = False
    """Print the numbers as one JSON object."""


def run(args: list[str]) -> int:
    """Draw responses and print how long they are. Returns the exit code."""
    if args and not args[0].startswith("-"):
        args = ["--model", *args]
    options = options_of(LengthsOptions(), args, "lengths")
    need_task(options.task)
    need_model(options.model)
    from policyopt.training.measure import lengths

    found = lengths(**{f.name: getattr(options, f.name) for f in dataclasses.fields(options) if f.name != "json"})
    if options.json:
        print(json.dumps({"model": options.model, "task": options.task, **found}))
        return 0
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("prompt", "mean", "std", "cv", "p25", "p50", "p75", "p99", "at the cap")
    for name, row in [*((row["id"], row) for row in found["prompts"]), ("all", found["all"])]:
        table.add_row(Text(name), *_cells(row))
    console = Console(highlight=False)
    title = f"{options.model} on {options.task}: tokens of {options.samples} responses, at most {found['cap']}"
    console.print(Text(title), soft_wrap=True)
    console.print(table)
    return 0


def _cells(row: dict[str, Any]) -> list[str]:
    whole = [f"{row['percentiles'][p]:.0f}" for p in ("25", "50", "75", "99")]
    return [f"{row['mean']:.1f}", f"{row['std']:.1f}", f"{row['cv']:.2f}", *whole, f"{row['at_cap'] / row['n']:.0%}"]
