"""The commands that read methods and run nothing: ``policyopt explain | verify | list | check``."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from policyopt.errors import UserError


def options_of(default: Any, args: list[str], command: str) -> Any:
    """A dataclass like ``default`` with what the line of a command sets."""
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


def explain(args: list[str]) -> int:
    """What a method is, and how it differs. Returns the exit code."""
    from policyopt.registry import get_method, methods

    if not args or "-h" in args or "--help" in args:
        print(EXPLAIN.format(methods=", ".join(methods())))
        return 0
    if args[0].startswith("-"):
        raise UserError(
            f"the method comes first: policyopt explain METHOD {args[0]} ...; known: {', '.join(methods())}"
        )
    options = options_of(ExplainOptions(), args[1:], f"explain {args[0]}")
    try:
        recipes = [get_method(name)() for name in (args[0], options.vs) if name is not None]
    except KeyError as error:
        raise UserError(error.args[0]) from error
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
usage: policyopt verify FILE_OR_FOLDER... [--words DIR] [--json]

Runs numeric cases against the library, in float64 with a relative tolerance of 1e-6, and prints a line for each: pass,
fail with both numbers, or unsupported with the reason. Exit code 0 only when nothing failed, 1 when something did.

  --words DIR   what the cases of each method call things, in DIR/METHOD.py; unset: the folder "words" beside each file
  --json        print the outcomes as a JSON list"""


def _words_folder(args: list[str]) -> Path | None:
    """The folder that ``--words`` names, taken out of the line."""
    if "--words" not in args:
        return None
    at = args.index("--words")
    if at + 1 == len(args):
        raise UserError("--words: expected a folder, got nothing")
    del args[at]
    folder = Path(args.pop(at))
    if not folder.is_dir():
        raise UserError(f"--words {folder}: no such folder; leave --words out to take the words beside the cases")
    return folder


def _operands(args: list[str], command: str, kinds: str) -> list[str]:
    """What a line names beside ``--json``, the only option that the command has."""
    names = [a for a in args if a != "--json"]
    if unknown := [a for a in names if a.startswith("-")]:
        raise UserError(f"{command} has no option {unknown[0]}; it takes {kinds} and --json")
    return names


def verify(args: list[str]) -> int:
    """Numeric cases against the library. Returns 1 where one fails, else 0."""
    if not args or "-h" in args or "--help" in args:
        print(VERIFY)
        return 0 if args else 2
    args = list(args)
    words = _words_folder(args)
    paths = _operands(args, "verify", "files, folders, --words DIR")
    from policyopt.lens.verify import case_files, read_cases, verify_file

    files = case_files(paths)
    for file in files:  # a file that breaks the schema stops the command before its first line
        read_cases(file)
    outcomes = []
    for file in files:
        for outcome in verify_file(file, words):
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


# list ----------------------------------------------------------------------------------------------------------------


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


def list_methods(args: list[str]) -> int:
    """The methods of the library, or their properties. Returns the exit code."""
    options = options_of(ListOptions(), args, "list")
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


def check(args: list[str]) -> int:
    """Properties of methods and of files. Returns 1 where something is broken, else 0."""
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
