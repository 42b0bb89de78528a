"""``policyopt tasks``: the built-in tasks, how to bring one's own, and what would be read of it."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from policyopt.cli.common import Count, options_of
from policyopt.data import load_task, need_task
from policyopt.errors import UserError, first_line
from policyopt.items import Example, Task

SHOWN = 2000
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class TasksOptions:
    """The tasks that come with the package, and how to bring your own; with the name of a task, ``policyopt tasks FILE``,
    what a run would read of it."""

    columns: str | None = None
    """Which column of a dataset is what, ``prompt=question,answer=gold``, ``completion=text,label=good``; unset:
    their names say it."""
    judge: str | None = None
    """Judge of a dataset: math, exact, number, regex, choice, ``module:function`` or ``file.py:function``."""
    eval_task: str | None = None
    """Files or a dataset to measure on, whole, in the place of held-out rows."""
    prompts: Count = 256
    """How many rows are held out at most."""
    model: str | None = None
    """A local folder or a hub id: show the first prompt as its chat template writes it."""


def run(args: list[str]) -> int:
    """Print the tasks, or what a run would read of one. Returns the exit code."""
    name, line = (None, args) if not args or args[0].startswith("-") else (args[0], args[1:])
    options = options_of(TasksOptions(), line, "tasks")
    if name is None:
        _overview()
        return 0
    need_task(name)
    task = load_task(
        name, judge=options.judge, heldout=options.prompts, columns=options.columns, eval_task=options.eval_task
    )
    _look(task, options.model)
    return 0


def _overview() -> None:
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


def _look(task: Task, model: str | None) -> None:
    """What was read: how, the judge, the first row."""
    from rich.console import Console
    from rich.text import Text

    from policyopt.training.console import writable

    console = Console(highlight=False)
    judge = "none: there are no answers" if task.judge is None else task.judge.name
    first = task.train[0]
    lines = [("task", task.name), *(("", note) for note in task.notes), ("judge", judge), ("first row", first.id)]
    for name, text in [*lines, *_row(first, model)]:
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]} ... ({len(text):,} characters)"
        head, *rest = writable(shown, console).split("\n")
        console.print(Text.assemble((f"{name:<12}", "dim"), head), soft_wrap=True)
        for more in rest:
            console.print(Text(f"{'':12}{more}"), soft_wrap=True)


def _row(example: Example, model: str | None) -> list[tuple[str, str]]:
    """What a row holds, by name."""
    shown = (
        [(m["role"], m["content"]) for m in example.prompt] if model is None else [("prompt", _written(example, model))]
    )
    for name in ("answer", "solution", "completion", "chosen", "rejected"):
        if text := getattr(example, name):
            shown.append((name, text))
    if example.label is not None:
        shown.append(("label", "good" if example.label else "bad"))
    shown += [(f"score {x:g}", text) for text, x in zip(example.responses, example.scores, strict=True)]
    return [*shown, ("for judges", ", ".join(example.meta))] if example.meta else shown


def _written(example: Example, model: str) -> str:
    """A prompt as the chat template of a model writes it, special tokens and all."""
    from transformers import AutoTokenizer

    from policyopt.models.text import encode_prompt

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except Exception as error:  # transformers and the hub raise a dozen kinds for what cannot be had
        raise UserError(f"--model {model}: its tokenizer cannot be loaded ({first_line(error)})") from None
    return str(tokenizer.decode(encode_prompt(tokenizer, example.prompt)))


OWN_TASKS = {
    "reasoning-gym:NAME": "any dataset of reasoning-gym",
    "data.jsonl": "one JSON object per line with prompt (text or chat messages), answer, and where there is one, solution; or "
    "question and answer, messages, prompt and completion (and label), chosen and rejected, responses and scores ...",
    "data.csv, data.parquet": "the same columns; .json, .tsv, .arrow and .gz too; --columns prompt=question,answer=gold names them",
    "data/*.jsonl": "all files of a pattern",
    "owner/name:config@split": "a dataset on the hub, or a folder that datasets saved",
    "a.jsonl*2+b.jsonl": "a mixture: two prompts of the first for one of the second",
    "train.jsonl,test.jsonl": "with held-out questions of your own; otherwise up to a quarter is held out",
}
ON_JUDGES = (
    "Responses to a dataset are judged by --judge math, exact, number, regex, choice, package.module:function or "
    "file.py:function; a function takes (prompt, response, answer) and returns a score. Without it, the answers decide.\n"
    "policyopt tasks FILE shows what a run would read of a file."
)
