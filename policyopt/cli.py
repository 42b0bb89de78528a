"""The command line: ``policyopt train | eval | sample | tasks``, and those of :mod:`policyopt.lens.commands`."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from policyopt.errors import UserError, explain, nearest
from policyopt.lens import commands as lens
from policyopt.lens.commands import options_of

if TYPE_CHECKING:
    from policyopt.recipe import Recipe
    from policyopt.registry import Method
    from policyopt.training.config import TrainConfig

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]

INTERRUPTED = 128 + signal.SIGINT
"""What a shell takes for a command that Ctrl-C ended."""

USAGE = """\
usage: policyopt COMMAND ...

  train METHOD   train a model with a method         policyopt train grpo --task chain_sum --steps 60
  eval           measure a model on a task           policyopt eval --model runs/grpo-chain_sum-seed0/model
  sample         read what a model answers           policyopt sample --task countdown --questions 2
  list           the methods, with parent and source
  explain METHOD what a method is, and how it differs   policyopt explain luspo --vs gspo --out luspo.html
  tasks          the tasks that come with the package, and how to bring your own
  verify FILE... numeric cases against the library    policyopt verify tests/cases
  check NAME     properties of a method, or of your file   policyopt check my_method.py

`policyopt COMMAND --help` says more; `policyopt train METHOD --help` shows every field of the method's parts."""

TRAIN = """\
usage: policyopt train METHOD [OPTIONS]

METHOD is one of: {methods}

`policyopt train METHOD --help` shows all options: the method's own (--low, --group-size, ...), those of the run
(--model, --task, --steps, --seed, --out, --lora, ...) and every field of every part (--recipe.surrogate.high, ...).

  --config FILE   take options from a YAML file (every run writes one as config.yaml); the line goes before the file
  --resume DIR    go on with the run in DIR from its newest checkpoint"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, or 2 for bad input and 130 for Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "eval": _eval,
        "sample": _sample,
        "list": lens.list_methods,
        "tasks": _tasks,
        "verify": lens.verify,
        "check": lens.check,
        "explain": lens.explain,
    }
    if not args or args[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if args[0] == "--version":
        from policyopt import __version__

        print(__version__)
        return 0
    if args[0] not in commands:
        return _complain(f"no command is called {args[0]!r}; {nearest(args[0], commands)}")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with _user_errors():
            return commands[args[0]](args[1:])
    except _Refused as error:
        return _complain(str(error))
    except SystemExit as end:  # tyro has printed the help, or what is wrong with the line
        return _complain(end.code) if isinstance(end.code, str) else end.code or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


class _Refused(Exception):
    """Bad input, already in words."""


@contextmanager
def _user_errors() -> Iterator[None]:
    """Turn what is the user's to mend into :class:`_Refused`; anything else keeps its traceback, because it is ours."""
    from pydantic import ValidationError

    try:
        yield
    except UserError as error:
        raise _Refused(str(error)) from error
    except ValidationError as error:
        raise _Refused(explain(error)) from error


def _complain(message: str) -> int:
    print(f"policyopt: {message}", file=sys.stderr)
    return 2


# train ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """What a run starts from."""

    config: Path | None = None
    """Take options from a YAML file; every run writes one as config.yaml. The line goes before the file."""
    resume: Path | None = None
    """Go on with the run in this folder from its newest checkpoint. Give only what shall differ, such as --steps."""


def _train(args: list[str]) -> int:
    from policyopt.registry import get_method, methods

    if not args or args[0] in ("-h", "--help"):
        print(TRAIN.format(methods=", ".join(methods())))
        return 0
    if args[0].startswith("-"):
        raise _Refused(f"the method comes first: policyopt train METHOD {args[0]} ...; known: {', '.join(methods())}")
    try:
        method = get_method(args[0])
    except KeyError as error:
        raise _Refused(error.args[0]) from error
    config, resume = parse_config(method, args[1:])
    from policyopt.training.console import final_table
    from policyopt.training.run import run

    result = run(config, resume=resume)
    final_table(result.summary, result.out / "report.html")
    if result.summary["stopped"] == "finished":
        return 0
    print(f"go on with: policyopt train {method.name} --resume {result.out}")
    return INTERRUPTED


def parse_config(method: Method, args: Sequence[str]) -> tuple[TrainConfig, Path | None]:
    """The configuration that a line asks for, and the folder of the run to resume, if any.

    The method's own hyper-parameters make the recipe; a file, or the run that is resumed, goes over it; the fields on
    the line go over both. Raises :class:`~policyopt.errors.UserError` for values that cannot be, and for
    hyper-parameters that the file or the run would undo; ``SystemExit`` as :func:`policyopt.options.parse` does.
    """
    from policyopt.options import UNNAMED, options, parse, parse_known
    from policyopt.training.config import TrainConfig, config_from_yaml

    prog = f"policyopt train {method.name}"
    asked = parse_known(_own_options(method), args, prog=prog)
    recipe = _recipe(method, asked)
    config = TrainConfig(recipe=recipe)
    if asked.resume is not None:
        from policyopt.training.run import need_run

        need_run(asked.resume)
        config = config_from_yaml(asked.resume / "config.yaml", config)
        _same_method(method, recipe, config.recipe, asked.resume, "leave it out, or start another run")
    if asked.config is not None:
        config = config_from_yaml(asked.config, config)
        _same_method(method, recipe, config.recipe, asked.config, "leave it out, or set the field itself on the line")
    line = options(
        own=(type(asked), dataclasses.field(default=asked, metadata=UNNAMED)),
        run=(TrainConfig, dataclasses.field(default=config, metadata=UNNAMED)),
    )
    return parse(line, args, prog=prog, description=method.make.__doc__ or "").run, asked.resume


def _own_options(method: Method) -> Any:
    """The options that come before the configuration: the method's hyper-parameters, and the files."""
    import typing

    from policyopt.options import options

    hints = typing.get_type_hints(method.make, include_extras=True)
    fields = {name: (hints[name], p.default) for name, p in method.hyperparameters.items()}
    return options(Files, docs=f"Hyper-parameter of {method.name}, see above.", **fields)


def _recipe(method: Method, asked: Any) -> Recipe:
    from pydantic import ValidationError

    try:
        return method(**{name: getattr(asked, name) for name in method.hyperparameters})
    except ValidationError as error:
        part = "" if error.title == "Recipe" else f": {error.title}"
        raise UserError(explain(error, method.name + part)) from error
    except ValueError as error:
        raise UserError(f"{method.name}: {error}") from error


def _same_method(method: Method, wanted: Recipe, found: Recipe, where: Path, advice: str) -> None:
    """Refuse a file of another method, and one that undoes what the hyper-parameters on the line ask for."""
    from policyopt.training.config import at, differences

    if found.name != method.name:
        raise UserError(f"{where} is of {found.name}, not of {method.name}")
    mine, theirs = wanted.to_dict(), found.to_dict()
    undone = set(differences(mine, theirs))
    for path in differences(mine, method().to_dict()):
        if path in undone:
            raise UserError(
                f"{where} has recipe.{path} = {at(theirs, path)}, and a hyper-parameter on the line "
                f"makes it {at(mine, path)}: {advice}"
            )


# eval, sample --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelOptions:
    """What answers, and what is asked."""

    model: str = "embedded"
    """``embedded``, a local folder, or a hub id."""
    task: str = "chain_sum"
    """A built-in task, ``reasoning-gym:NAME``, a JSONL or Parquet file, or a hub dataset."""
    judge: str | None = None
    """Judge of a dataset: math, exact, number, regex, choice, ``module:function`` or ``file.py:function``."""
    max_tokens: Count | None = None
    """Budget of a response in tokens; unset: what the task suggests."""
    seed: Whole = 0
    """The same seed gives the same sampled responses."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``; auto takes a GPU where there is one."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Precision of the weights."""


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


def _eval(args: list[str]) -> int:
    options = options_of(EvalOptions(), args, "eval")
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


def _sample(args: list[str]) -> int:
    options = options_of(SampleOptions(), args, "sample")
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


# tasks ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TasksOptions:
    """The tasks that come with the package, and how to bring your own."""


def _tasks(args: list[str]) -> int:
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
