"""``policyopt list``: what the library holds."""

from __future__ import annotations

import json
import sys
from itertools import groupby
from typing import Literal

from pydantic.dataclasses import dataclass

from policyopt.cli.common import options_of
from policyopt.docs import plain
from policyopt.errors import UserError
from policyopt.registry import Entry, entries


@dataclass(frozen=True)
class ListOptions:
    """What the library holds: its methods, each with its parent, its source and where its facts come from, or things of
    another kind. WORDs leave those that have all of them in name, family or sentence."""

    kind: Literal["method", "part", "tool", "testbed", "study", "guide", "all"] = "method"
    """What to list; ``policyopt explain NAME`` says more of each."""
    json: bool = False
    """Print them as a JSON list."""
    properties: bool = False
    """Measure the properties of every method and print them as a table; see ``policyopt check``."""
    engine: Literal["local", "ray", "tinker"] | None = None
    """Print which methods an engine serves, and what the others ask for that it does not have."""
    markdown: bool = False
    """Print Markdown: the page docs/methods.md, or with ``--properties`` the page docs/properties.md."""


METHODS_PAGE = """\
# Methods

{count} methods, by the mechanism that they change. `policyopt explain METHOD` shows the parts, the formula and the token
weights of one, [properties.md](properties.md) what each of them measurably does. *Facts from* is the best source that
formulas and defaults were taken from: authors' code, the paper, a third party's account, general knowledge, or the abstract alone.
This page is the output of

    policyopt list --markdown > docs/methods.md"""
BESIDE = """
# Beside the methods

Papers that train nothing of their own are not dressed up as methods: studies measure or prove, tools work before or after
training, guides say what to take. `policyopt explain NAME` says more of each."""


COLUMNS = {"method": ("family", "parent", "source", "confidence", "summary")}
"""What is said of an entry of a kind beside its name."""
OTHER_COLUMNS = ("kind", "family", "source", "summary")

NARROW = 60
"""On a terminal of fewer columns a name stands above what it is, not beside it."""

Row = dict[str, str | None]


def run(args: list[str]) -> int:
    """Print what the library holds. Returns the exit code."""
    words, line = _words(args)
    options = options_of(ListOptions(), line, "list")
    if options.properties:
        return _properties(options)
    if options.engine is not None:
        return _served(options.engine, words)
    kind = None if options.kind == "all" else options.kind
    chosen = [e for e in entries(kind) if all(word in _text(e) for word in words)]
    if not chosen:
        raise UserError(_nothing(options.kind, words))
    if options.markdown:
        page = kind == "method" and not words
        if page:
            print(METHODS_PAGE.format(count=len(chosen)))
        _print_markdown(chosen)
        if page:
            print(BESIDE)
            _print_markdown(_beside())
        return 0
    rows = [_row(e, options.kind) for e in chosen]
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        _print_rows(rows)
    return 0


def _words(args: list[str]) -> tuple[list[str], list[str]]:
    """The WORDs of a line in lower case, and the options that are left."""
    words: list[str] = []
    line: list[str] = []
    for before, word in zip([None, *args], args, strict=False):
        (line if word.startswith("-") or before in ("--kind", "--engine") else words).append(word)
    return [word.casefold() for word in words], line


def _text(e: Entry) -> str:
    return f"{e.name} {e.family} {plain(e.summary)}".casefold()


def _nothing(kind: str, words: list[str]) -> str:
    what = "the library has nothing" if kind == "all" else f"the library has no {kind}"
    if words:
        what += f" with {' and '.join(map(repr, words))} in name, family or sentence"
    return f"{what}; `policyopt list --kind all` shows everything"


def _row(e: Entry, kind: str) -> Row:
    """What is said of an entry, by column; the first is its name."""
    first, names = ("method", COLUMNS["method"]) if kind == "method" else ("name", OTHER_COLUMNS)
    shown = {name: getattr(e, name) for name in names}
    return {first: e.name} | shown | {"summary": _about(e)}


def _about(e: Entry) -> str:
    """What it is, in a sentence without markup."""
    if e.kind == "method":
        return e.summary
    from policyopt.lens.formula import spoken

    return spoken(e.summary)


def _beside() -> list[Entry]:
    """What is neither a method, nor part of one, nor a task."""
    return [e for e in entries() if e.kind in ("study", "tool", "guide")]


def _print_rows(rows: list[Row]) -> None:
    """For people: by family on a terminal, one line for each in a pipe."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        cells = [[value or "-" for value in row.values()] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        return
    names = [str(next(iter(row.values()))) for row in rows]
    for family, members in groupby(zip(names, rows, strict=True), key=lambda pair: _title(pair[1])):
        if console.width < NARROW:
            console.print(Text(family, style="bold"))
            for name, row in members:
                console.print(Text(f" {name}", style="cyan"))
                console.print(Padding(Text(str(row["summary"])), (0, 0, 0, 3)))
                console.print(Padding(Text(_origin(row), style="dim"), (0, 0, 0, 3)))
            continue
        table = Table(title=family, title_justify="left", title_style="bold", box=None, show_header=False)
        table.add_column(style="cyan", no_wrap=True, min_width=max(map(len, names)))
        for name, row in members:
            table.add_row(name, Text(str(row["summary"])))
            table.add_row("", Text(_origin(row), style="dim"))
        console.print(table)


def _title(row: Row) -> str:
    return ": ".join(filter(None, [row.get("kind"), row["family"]]))


def _origin(row: Row) -> str:
    origin = f"child of {row['parent']}, " if row.get("parent") else ""
    facts = f"; facts from: {row['confidence']}" if row.get("confidence") else ""
    return f"{origin}{row['source']}{facts}"


def _print_markdown(chosen: list[Entry]) -> None:
    """A table for each family of methods, and for each kind of other things."""
    for title, members in groupby(chosen, key=lambda e: e.family if e.kind == "method" else f"{e.kind}: {e.family}"):
        group = [*members]
        methods = group[0].kind == "method"
        third = "child of" if methods else "use"
        print(f"\n## {title}\n\n| {group[0].kind} | what it is | {third} | source | facts from |")
        print("| --- | --- | --- | --- | --- |")
        for e in group:
            link = f"[{e.arxiv}](https://arxiv.org/abs/{e.arxiv})" if e.arxiv else e.source
            middle = (e.parent or "") if methods else f"`{e.how}`"
            print(f"| `{e.name}` | {_about(e)} | {middle} | {link} | {e.confidence or ''} |")


def _served(engine: str, words: list[str]) -> int:
    """The methods of the WORDs in Markdown, with what stands against each."""
    from policyopt.engine import capabilities
    from policyopt.registry import methods

    has = capabilities(engine)
    found = [(e, [x for x in methods()[e.name]().asks if x not in has]) for e in entries("method")]
    chosen = [(e, missing) for e, missing in found if all(word in _text(e) for word in words)]
    print(f"{sum(not missing for _, missing in chosen)} of {len(chosen)} methods run on the engine {engine}.")
    print("\n| method | family | served | what it asks for beyond |\n| --- | --- | --- | --- |")
    for e, missing in chosen:
        print(f"| `{e.name}` | {e.family} | {'no' if missing else 'yes'} | {', '.join(missing)} |")
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
