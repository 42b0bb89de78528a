"""``policyopt tasks``: the built-in tasks, and how to bring one's own."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from policyopt.cli.common import options_of


@dataclass(frozen=True)
class TasksOptions:
    """The tasks that come with the package, and how to bring your own."""


def run(args: list[str]) -> int:
    """Print the tasks. Returns the exit code."""
    options_of(TasksOptions(), args, "tasks")
    from rich.console import Console
    from rich.table import Table

    from policyopt.data import builtin_tasks

    console = Console(highlight=False)
    for title, rows in (("built-in tasks", builtin_tasks()), ("your own", OWN_TASKS)):
        table = Table("--task", "what it asks", title=title, title_justify="left")
        for name, summary in rows.items():
            table.add_row(name, summary)
        console.print(table)
    console.print(ON_JUDGES)
    return 0


OWN_TASKS = {
    "reasoning-gym:NAME": "any dataset of reasoning-gym",
    "data.jsonl": "one JSON object per line with prompt (text or chat messages), answer, and where there is one, solution",
    "data.parquet": "the same columns",
    "owner/name": "a dataset on the hub with the same columns",
    "train.jsonl,test.jsonl": "with held-out questions of your own; otherwise up to a quarter is held out",
}
ON_JUDGES = (
    "Responses to a dataset are judged by --judge math, exact, number, regex, choice, package.module:function or "
    "file.py:function; a function takes (prompt, response, answer) and returns a score. Without it, the answers decide."
)
