"""The command line: ``policyopt train | eval | sample | list | explain | verify | tasks``."""

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
        "list": _list,
        "tasks": _tasks,
        "verify": _verify,
        "check": _check,
        "explain": _explain,
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
    options = _options(EvalOptions(), args, "eval")
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
    options = _options(SampleOptions(), args, "sample")
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


def _options(default: Any, args: list[str], command: str) -> Any:
    from policyopt.options import parse

    return parse(default, args, prog=f"policyopt {command}", description=type(default).__doc__ or "")


# explain -------------------------------------------------------------------------------------------------------------

EXPLAIN = """\
usage: policyopt explain METHOD [--vs OTHER] [--out FILE.html] [--json]

Prints a method's formula, source and parts, what differs from its parent (and from OTHER), what it needs and costs, and
the weight that it gives to every token of a fixed batch beside those of the other method.

METHOD is one of: {methods}

  --vs OTHER        a method to compare it with; unset: its parent
  --out FILE.html   write it as a page too, one file that needs nothing else
  --json            print it as one JSON object"""


@dataclass(frozen=True)
class ExplainOptions:
    """What a method is, and how it differs from another one."""

    vs: str | None = None
    """A method to compare it with; unset: its parent."""
    out: Path | None = None
    """Write a page too: one HTML file that needs nothing else."""
    json: bool = False
    """Print it as one JSON object."""


def _explain(args: list[str]) -> int:
    from policyopt.registry import get_method, methods

    if not args or "-h" in args or "--help" in args:
        print(EXPLAIN.format(methods=", ".join(methods())))
        return 0
    if args[0].startswith("-"):
        raise _Refused(f"the method comes first: policyopt explain METHOD {args[0]} ...; known: {', '.join(methods())}")
    options = _options(ExplainOptions(), args[1:], f"explain {args[0]}")
    try:
        recipes = [get_method(name)() for name in (args[0], options.vs) if name is not None]
    except KeyError as error:
        raise _Refused(error.args[0]) from error
    from rich.console import Console

    from policyopt.lens.explain import explain as explain_recipe
    from policyopt.lens.explain_page import write_explanation
    from policyopt.lens.explain_terminal import show

    found = explain_recipe(*recipes)
    if options.out is not None:
        write_explanation(found, options.out)
    if options.json:
        print(json.dumps(found.to_dict(), indent=1))
        return 0
    show(found, Console(highlight=False))
    if options.out is not None:
        print(f"\npage: {options.out}")
    return 0


# verify --------------------------------------------------------------------------------------------------------------

VERIFY = """\
usage: policyopt verify FILE_OR_FOLDER... [--json]

Runs numeric cases against the library, in float64 with a relative tolerance of 1e-6, and prints a line for each: pass,
fail with both numbers, or unsupported with the reason. Exit code 0 only when nothing failed, 1 when something did.

  --json   print the outcomes as a JSON list"""


def _operands(args: list[str], command: str, kinds: str) -> list[str]:
    """What a line names beside ``--json``, the only option that the command has."""
    names = [a for a in args if a != "--json"]
    if unknown := [a for a in names if a.startswith("-")]:
        raise _Refused(f"{command} has no option {unknown[0]}; it takes {kinds} and --json")
    return names


def _verify(args: list[str]) -> int:
    if not args or "-h" in args or "--help" in args:
        print(VERIFY)
        return 0 if args else 2
    paths = _operands(args, "verify", "files, folders")
    from policyopt.lens.verify import case_files, read_cases, verify_file

    files = case_files(paths)
    for file in files:  # a file that breaks the schema stops the command before its first line
        read_cases(file)
    outcomes = []
    for file in files:
        for outcome in verify_file(file):
            outcomes.append(outcome)
            if "--json" not in args:
                print(outcome, flush=True)
    counts = {status: sum(o.status == status for o in outcomes) for status in ("pass", "fail", "unsupported")}
    if "--json" in args:
        plain = json.dumps([dataclasses.asdict(o) for o in outcomes], default=str)
        # JSON has no infinity: an error that is not finite is null
        print(json.dumps(json.loads(plain, parse_constant=lambda name: None), indent=1))
    else:
        print(f"{len(outcomes)} cases: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    return 1 if counts["fail"] else 0


# list, tasks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListOptions:
    """The methods of the library: each with its parent, its source, and where its facts come from."""

    json: bool = False
    """Print them as a JSON list."""
    properties: bool = False
    """Measure the properties of every method and print them as a table; see ``policyopt check``."""
    markdown: bool = False
    """Print Markdown: the page docs/methods.md, or with ``--properties`` the page docs/properties.md."""


METHODS_PAGE = """\
# Methods

{count} methods, by the mechanism that they change. `policyopt explain METHOD` shows the parts, the formula and the token
weights of one, [properties.md](properties.md) what each of them measurably does. *Facts from* is the best source that
formulas and defaults were taken from: authors' code, the paper, a third party's account, general knowledge, or the abstract alone.
This page is the output of

    policyopt list --markdown > docs/methods.md"""


def _list(args: list[str]) -> int:
    options = _options(ListOptions(), args, "list")
    if options.properties:
        return _properties(options)
    from itertools import groupby

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from policyopt.registry import methods

    names = ("family", "parent", "source", "confidence", "summary")
    ordered = sorted(methods().values(), key=lambda m: (m.family, m.name))
    rows = [{"method": m.name} | {name: getattr(m, name) for name in names} for m in ordered]
    console = Console(highlight=False)
    if options.json:
        print(json.dumps(rows, indent=1))
    elif options.markdown:
        print(METHODS_PAGE.format(count=len(rows)))
        for family, members in groupby(rows, key=lambda row: row["family"]):
            print(
                f"\n## {family}\n\n| method | what it is | child of | source | facts from |\n| --- | --- | --- | --- | --- |"
            )
            for row in members:
                arxiv = (row["source"] or "").removeprefix("arXiv:")
                link = row["source"] if arxiv == row["source"] else f"[{arxiv}](https://arxiv.org/abs/{arxiv})"
                print(
                    f"| `{row['method']}` | {row['summary']} | {row['parent'] or ''} | {link} | {row['confidence']} |"
                )
    elif not console.is_terminal:  # a line for each, in columns
        cells = [[row[name] or "-" for name in ("method", *names)] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    else:
        for family, members in groupby(rows, key=lambda row: row["family"]):
            table = Table(title=family, title_justify="left", title_style="bold", box=None, show_header=False)
            table.add_column(style="cyan", no_wrap=True, min_width=max(len(row["method"]) for row in rows))
            for row in members:
                origin = f"child of {row['parent']}, " if row["parent"] else ""
                table.add_row(row["method"], Text(row["summary"]))
                table.add_row("", Text(f"{origin}{row['source']}; facts from: {row['confidence']}", style="dim"))
            console.print(table)
    return 0


def _properties(options: ListOptions) -> int:
    from rich.console import Console
    from rich.progress import track

    from policyopt.lens.check import check
    from policyopt.lens.check.render import markdown, text
    from policyopt.registry import methods

    quiet = not sys.stderr.isatty()
    found = track(methods().values(), "measuring", console=Console(stderr=True), transient=True, disable=quiet)
    reports = [check(method()) for method in found]
    if options.json:
        print(json.dumps([r.to_dict() for r in reports], indent=1))
    else:
        print(markdown(reports) if options.markdown else text(reports))
    return 0


# check ---------------------------------------------------------------------------------------------------------------

CHECK = """\
usage: policyopt check METHOD_OR_FILE.py... [--json]

Measures the properties of a method on random batches, in float64: what shifts and scales of the reward do, length bias,
weights at extreme ratios, bias off-policy, and whether gradient, padding, order and micro-batches are right.

Of a file of your own it checks every method (@method) and every part that none of them uses, in its place in a plain
GRPO. The file is imported, so it runs like any script of yours. Exit code 1 when something is broken; what is only a
characteristic, such as a length bias, never fails.

  --json   print the reports as a JSON list"""


def _check(args: list[str]) -> int:
    if not args or "-h" in args or "--help" in args:
        print(CHECK)
        return 0 if args else 2
    names = _operands(args, "check", "methods, files")
    from rich.console import Console

    from policyopt.lens.check.files import check_named
    from policyopt.lens.check.render import show

    reports = [report for name in names for report in check_named(name)]
    if "--json" in args:
        print(json.dumps([r.to_dict() for r in reports], indent=1))
    else:
        console = Console(highlight=False)
        for report in reports:
            show(report, console)
    return 1 if any(r.broken for r in reports) else 0


@dataclass(frozen=True)
class TasksOptions:
    """The tasks that come with the package, and how to bring your own."""


def _tasks(args: list[str]) -> int:
    _options(TasksOptions(), args, "tasks")
    from rich.console import Console
    from rich.table import Table

    from policyopt.tasks import builtin_tasks

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
    "data.jsonl": "one JSON object per line with prompt (text or chat messages) and answer",
    "data.parquet": "the same columns",
    "owner/name": "a dataset on the hub with the same columns",
    "train.jsonl,test.jsonl": "with held-out questions of your own; otherwise up to a quarter is held out",
}
ON_JUDGES = (
    "Responses to a dataset are judged by --judge math, exact, number, regex, choice, package.module:function or "
    "file.py:function; a function takes (prompt, response, answer) and returns a score. Without it, the answers decide."
)
