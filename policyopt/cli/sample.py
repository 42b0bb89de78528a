"""``policyopt sample``: read what a model answers."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from policyopt.cli.common import Count, Heat, ModelOptions, Share, need_model, options_of
from policyopt.data import need_task


@dataclass(frozen=True)
class SampleOptions(ModelOptions):
    """Read what a model answers: to questions of a task, with the judge's verdict, or to a prompt of your own."""

    prompt: str | None = None
    """A prompt of your own in the place of the task's questions."""
    questions: Count = 4
    """How many questions: rows of a dataset, held-out questions of a task that makes them."""
    n: Count = 1
    """Responses to each."""
    temperature: Heat = 1.0
    """Sampling temperature; 0 is greedy."""
    top_p: Share = 1.0
    """Sample from the fewest likeliest tokens whose probability is at least this together; 1 samples from all."""
    top_k: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Sample from so many likeliest tokens; unset: from all."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Sample from tokens that are at least this share as likely as the likeliest; 0 samples from all."""


def run(args: list[str]) -> int:
    """Draw responses and print them. Returns the exit code."""
    options = options_of(SampleOptions(), args, "sample")
    need_task(options.task)
    need_model(options.model)
    from textwrap import indent

    from rich.console import Console
    from rich.text import Text

    from policyopt.training.console import writable
    from policyopt.training.measure import sample

    out = Console(highlight=False)
    for found in sample(**{f.name: getattr(options, f.name) for f in dataclasses.fields(options)}):
        out.print(Text(writable(found["prompt"], out), style="bold"), soft_wrap=True)
        for response in found["responses"]:
            line = Text(indent(writable(response["response"], out), "  "))
            if response["reason"] is not None:
                score = "no reward" if response["score"] is None else f"{response['score']:g}"
                line.append(f"   {score}: {writable(response['reason'], out)}", style="dim")
            out.print(line, soft_wrap=True)
    return 0
