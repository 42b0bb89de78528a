"""``policyopt explain``: what something in the library is."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic.dataclasses import dataclass

from policyopt.cli.common import found, options_of
from policyopt.errors import UserError
from policyopt.qualified import is_own, need
from policyopt.registry import Entry, entries, entry

EXPLAIN = """\
usage: policyopt explain NAME [--vs OTHER] [--out FILE.html] [--json]

NAME may be a method of your own too, whose file then runs: my.py, my.py:NAME, package.module:NAME, recipe.yaml.

Of a method it prints the formula, source and parts, what differs from its parent (and from OTHER), what it needs and
costs, and the weight that it gives to every token of a fixed batch beside those of the other method.

Of a part: its slot, fields, formula, and the methods that use it; of a task a question and its solution; of a study, a
tool or a guide what it says and how it is used.

NAME is one of these methods, or what `policyopt list --kind all` shows: {methods}

It may also be code of your own (my.py, my.py:name, package.module:name), or a recipe in a file (recipe.yaml).

  --vs OTHER        a method to compare a method with; unset: its parent
  --out FILE.html   write a method's page too, one file that needs nothing else
  --json            print it as one JSON object"""


@dataclass(frozen=True)
class ExplainOptions:
    """What something in the library is, and how a method differs from another one."""

    vs: str | None = None
    """A method to compare it with; unset: its parent."""
    out: Path | None = None
    """Write a page too: one HTML file that needs nothing else."""
    json: bool = False
    """Print it as one JSON object."""


def run(args: list[str]) -> int:
    """Explain what a line names. Returns the exit code."""
    if not args or "-h" in args or "--help" in args:
        print(EXPLAIN.format(methods=_methods()))
        return 0
    if args[0].startswith("-"):
        raise UserError(f"the method comes first: policyopt explain METHOD {args[0]} ...; known: {_methods()}")
    options = options_of(ExplainOptions(), args[1:], f"explain {args[0]}")
    about = None if is_own(args[0]) else found(entry, args[0])
    if options.vs is not None:
        need(options.vs)
    if about is not None and about.kind != "method":
        return _explain_other(about, options)
    need(args[0])
    return _explain_method(args[0], options)


def _methods() -> str:
    return ", ".join(sorted(e.name for e in entries("method")))


def _explain_method(name: str, options: ExplainOptions) -> int:
    from rich.console import Console

    from policyopt.lens.explain import explain
    from policyopt.lens.explain_page import write_explanation
    from policyopt.lens.explain_terminal import show
    from policyopt.own import resolve

    method = resolve(name)
    explained = explain(method(), resolve(options.vs)() if options.vs is not None else None, method=method)
    if options.out is not None:
        write_explanation(explained, options.out)
    if options.json:
        print(json.dumps(explained.to_dict(), indent=1))
        return 0
    show(explained, Console(highlight=False))
    if options.out is not None:
        print(f"\npage: {options.out}")
    return 0


def _explain_other(about: Entry, options: ExplainOptions) -> int:
    if options.vs is not None or options.out is not None:
        raise UserError(f"{about.name} is a {about.kind}: --vs and --out are for methods; leave them out")
    from rich.console import Console

    from policyopt.lens.explain_entry import described, show

    told = described(about)
    if options.json:
        print(json.dumps(told, indent=1))
    else:
        show(told, Console(highlight=False))
    return 0
