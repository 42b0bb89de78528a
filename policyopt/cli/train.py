"""``policyopt train``: train a model with a method."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from policyopt import cache as disk
from policyopt.aliases import renamed
from policyopt.cli import plan
from policyopt.cli.common import found, need_model
from policyopt.cli.line import check_line
from policyopt.data import need_task
from policyopt.data.columns import parse_columns
from policyopt.errors import UserError, explain
from policyopt.files import need_run, read_yaml
from policyopt.index import index
from policyopt.qualified import need
from policyopt.registry import entries, get_study, need_study
from policyopt.training.process import need_launcher, serves

if TYPE_CHECKING:
    from policyopt.options import Option
    from policyopt.recipe import Recipe
    from policyopt.registry import Method
    from policyopt.training.config import TrainConfig

TRAIN = """\
usage: policyopt train METHOD [OPTIONS]
       policyopt train PLAN.yaml [OPTIONS]
       policyopt train --resume DIR [OPTIONS]

METHOD is one of: {methods}

or a method of your own, whose file then runs: my.py, my.py:NAME, package.module:NAME, recipe.yaml. PLAN.yaml has several runs
that follow one another, as `stages`.

`policyopt train METHOD --help` shows all options: the method's own (--low, --group-size, ...), those of the run
(--model, --task, --steps, --seed, --out, --lora, ...) and every field of every part (--recipe.surrogate.high, ...).
--recipe.SLOT PART puts another part into a slot (--recipe.advantage Decoupled); one that wraps another takes the old one in.

  --config FILE   take options from a YAML file (every run writes one as config.yaml); the line goes before the file
  --resume DIR    go on with the run in DIR from its newest checkpoint; its configuration says with which method
  --accept-changes   resume although data, code or models have changed since
  --profile       say after the run where its time and memory went
  --with STUDY    measure what a study measures too: {studies}
  --watch NAME=PATTERN   log what share of the tokens, and of the token weight, falls on the matches of a regular expression"""


HELP = {"-h", "--help"}


@dataclass(frozen=True)
class Files:
    """What a run starts from, and what it measures beside."""

    config: Path | None = None
    """Take options from a YAML file; every run writes one as config.yaml. The line goes before the file."""
    resume: Path | None = None
    """Go on with the run in this folder from its newest checkpoint. Give only what shall differ, such as --steps."""
    accept_changes: bool = False
    """Resume although data, code or models are not what they were when the run began."""
    profile: bool = False
    """Say after the run where its time and memory went, against what its arithmetic alone would take; in profile.json too."""
    studies: tuple[str, ...] = dataclasses.field(default=(), metadata={"option": "with"})
    """Measure what these studies measure too; ``policyopt list --kind study`` shows them."""
    watch: str | None = None
    """Log what share of the tokens, and of the token weight, falls on the matches of a regular expression: NAME=PATTERN."""


def run(args: list[str]) -> int:
    """Train, and say what came of it. Returns the exit code."""
    names = {kind: ", ".join(sorted(e.name for e in entries(kind))) for kind in ("method", "study")}
    if not args or args[0] in HELP:
        print(TRAIN.format(methods=names["method"], studies=names["study"]))
        return 0
    if serves():  # what there is to say the first rank says
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 -- for as long as the process lives
        logging.getLogger("policyopt").setLevel(logging.ERROR)
    args, notes = renamed(args)
    for note in notes:
        print(note, file=sys.stderr)
    name, line = (None, args) if args[0].startswith("-") else (args[0], args[1:])
    if name is None and not _saved(line):
        raise UserError(f"the method comes first: policyopt train METHOD {args[0]} ...; known: {names['method']}")
    if (resumed := _last(line, "--resume")) is not None and (Path(resumed) / "plan.yaml").is_file():
        return plan.run(None, resumed, _without(line, "--resume"))
    if name is not None and _holds(name, "stages"):
        return plan.run(name, None, line)
    if name is not None:
        name = need(name)
        if _holds(name, "recipe") and not _saved(line):
            line = ["--config", name, *line]
    if name is not None and len(line) == 1 and line[0] in HELP:
        print(method_help(name), end="")
        return 0
    if not HELP & {*line}:
        _need(line)
        if name is not None and (known := known_options(name)):
            check_line(line, known, f"policyopt train {name}", sure=False)
    from policyopt.own import resolve

    config, files = parse_config(resolve(name or str(_saved(line))), line)
    from policyopt.training.console import final_table
    from policyopt.training.profile import profile_tables
    from policyopt.training.run import run as carry_out

    result = carry_out(config, resume=files.resume, accept_changes=files.accept_changes, profile=files.profile)
    final_table(result.summary, result.out / "report.html")
    if files.profile:
        profile_tables(result.out)
    if "signal" not in result.summary:
        return 1 if "error" in result.summary.get("pushed", {}) else 0
    print(f"go on with: policyopt train {f'{name} ' if name else ''}--resume {result.out}")
    return 128 + int(result.summary["signal"])


def known_options(name: str) -> list[Option]:
    """The options of a method of the library as its last line had them; none where there was no line yet."""
    from policyopt.options import Option

    return [Option(*option) for option in disk.read("options").get(name, ())]


def _keep_options(name: str, options: list[Option]) -> None:
    kept, plain = disk.read("options"), json.loads(json.dumps(options))
    if kept.get(name) != plain:
        disk.write("options", {**kept, name: plain})


def _saved(line: list[str]) -> str | None:
    """The file on a line that says which recipe is meant: the configuration of a run."""
    resume, config = _last(line, "--resume"), _last(line, "--config")
    if resume:
        return str(Path(resume) / "config.yaml")
    return config if config and _holds(config, "recipe") else None


def _holds(name: str, field: str) -> bool:
    """Whether a name is that of a YAML file with such a field."""
    return name.endswith((".yaml", ".yml")) and Path(name).is_file() and field in read_yaml(Path(name))


def _need(line: list[str]) -> None:
    """Raises ``UserError`` for files, tasks, columns, models and studies on a line that cannot be, before torch is imported."""
    need_launcher()
    if config := _last(line, "--config"):
        read_yaml(Path(config))
    if resume := _last(line, "--resume"):
        need_run(Path(resume))
    for option in ("--task", "--eval-task"):
        if task := _last(line, option):
            need_task(task)
    parse_columns(_last(line, "--columns"))
    if model := _last(line, "--model"):
        need_model(model)
    if study := _last(line, "--with"):
        found(need_study, study)


def _without(line: list[str], option: str) -> list[str]:
    """A line without an option and its word."""
    kept, skip = [], False
    for word in line:
        if not skip and word.partition("=")[0] != option:
            kept.append(word)
        skip = word == option
    return kept


def _last(line: list[str], option: str) -> str | None:
    """The word that an option has on a line, where it has one."""
    words = [after for word, after in itertools.pairwise(line) if word == option]
    words += [word.removeprefix(f"{option}=") for word in line if word.startswith(f"{option}=")]
    return next((word for word in words if not word.startswith("--")), None)


def method_help(name: str) -> str:
    """The help of a method as it looks on this terminal; that of the library's methods is kept on the disk."""
    size, colour = shutil.get_terminal_size().columns, sys.stdout.isatty() or bool(os.environ.get("FORCE_COLOR"))
    versions = ",".join(version(package) for package in ("tyro", "pydantic"))
    key = f"{name} {size} {colour} {os.environ.get('TERM')} {versions}"
    known = disk.read("help")
    if isinstance(known.get(key), str):
        return str(known[key])
    from policyopt.own import resolve

    shown = _Shown(sys.stdout.isatty())
    method = resolve(name)
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        parse_config(method, ["--help"])
    if method.entry == index().get(name):
        disk.write("help", {**known, key: shown.getvalue()})
    return shown.getvalue()


class _Shown(io.StringIO):
    """Text that is shown later, laid out for where it will be shown."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def parse_config(method: Method, args: Sequence[str]) -> tuple[TrainConfig, Files]:
    """The configuration that a line asks for, and the files that it names.

    The method's own hyper-parameters make the recipe; a file, or the run that is resumed, goes over it; the fields on
    the line go over both. Raises :class:`~policyopt.errors.UserError` for values that cannot be, and for
    hyper-parameters that the file or the run would undo; ``SystemExit`` as :func:`policyopt.options.parse` does.
    """
    from policyopt.cli.exchange import exchanged
    from policyopt.options import UNNAMED, catalogue, options, parse, parse_known
    from policyopt.training.config import TrainConfig, config_from_yaml

    prog = f"policyopt train {method.name}"
    asked = parse_known(_own_options(method), args, prog=prog)
    recipe = _recipe(method, asked)
    config = TrainConfig(recipe=recipe)
    if asked.resume is not None:
        need_run(asked.resume)
        config = config_from_yaml(asked.resume / "config.yaml", config)
        _same_method(method, recipe, config.recipe, asked.resume, "leave it out, or start another run")
    if asked.config is not None:
        config = config_from_yaml(asked.config, config)
        _same_method(method, recipe, config.recipe, asked.config, "leave it out, or set the field itself on the line")
    recipe, args = exchanged(_measured(config.recipe, asked.studies, asked.watch), args)
    config = dataclasses.replace(config, recipe=recipe)
    line = options(
        own=(type(asked), dataclasses.field(default=asked, metadata=UNNAMED)),
        run=(TrainConfig, dataclasses.field(default=config, metadata=UNNAMED)),
    )
    known = [*catalogue(line)]
    if asked.resume is None and asked.config is None and method.entry == index().get(method.name):
        _keep_options(method.name, known)
    check_line(args, known, prog)
    return parse(line, args, prog=prog, description=method.make.__doc__ or "").run, asked


def _measured(recipe: Recipe, studies: Sequence[str], watch: str | None) -> Recipe:
    """The recipe with the probes of studies, those that it has none of, and with one that watches a span."""
    for name in studies:
        there = {type(p) for p in recipe.probes}
        recipe = recipe.replace(probes=(*recipe.probes, *(p for p in found(get_study, name)() if type(p) not in there)))
    if watch is None:
        return recipe
    from policyopt.parts.probe.watched import watching

    return recipe.replace(probes=(*recipe.probes, watching(watch)))


def _own_options(method: Method) -> Any:
    """The options that come before the configuration: the method's hyper-parameters, and the files."""
    import typing

    from policyopt.options import options

    hints = typing.get_type_hints(method.make, include_extras=True)
    fields = {name: (hints.get(name, type(p.default)), p.default) for name, p in method.hyperparameters.items()}
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


def _same_method(method: Method, wanted: Recipe, other: Recipe, where: Path, advice: str) -> None:
    """Refuse a file of another method, and one that undoes what the hyper-parameters on the line ask for."""
    from policyopt.training.trees import at, differences

    if other.name != method.name:
        raise UserError(f"{where} is of {other.name}, not of {method.name}")
    mine, theirs = wanted.to_dict(), other.to_dict()
    undone = set(differences(mine, theirs))
    for path in differences(mine, method().to_dict()):
        if path in undone:
            raise UserError(
                f"{where} has recipe.{path} = {at(theirs, path)}, and a hyper-parameter on the line "
                f"makes it {at(mine, path)}: {advice}"
            )
