"""``policyopt sample``: read what a model answers."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from policyopt.cli.common import Count, ModelOptions, need_model, options_of
from policyopt.data import need_task


@dataclass(frozen=True)
class SampleOptions(ModelOptions):
    """Read what a model answers: to questions of a task, with the judge's verdict, or to a prompt of your own."""

    prompt: str | None = None
    """A prompt of your own in the place of the task's questions."""
    questions: Count = 4
    """How many held-out questions."""
    n: Count = 1
    """Responses to each."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Sampling temperature; 0 is greedy."""


def run(args: list[str]) -> int:
    """Draw responses and print them. Returns the exit code."""
    options = options_of(SampleOptions(), args, "sample")
    need_task(options.task)
    need_model(options.model)
    from textwrap import indent

    from rich.console import Console
    from rich.text import Text

    from policyopt.training.console import writable
    from policyopt.training.run import sample_model

    out = Console(highlight=False)
    for found in sample_model(**{f.name: getattr(options, f.name) for f in dataclasses.fields(options)}):
        out.print(Text(writable(found["prompt"], out), style="bold"), soft_wrap=True)
        for response in found["responses"]:
            line = Text(indent(writable(response["response"], out), "  "))
            if response["reason"] is not None:
                line.append(f"   {response['score']:g}: {writable(response['reason'], out)}", style="dim")
            out.print(line, soft_wrap=True)
    return 0
