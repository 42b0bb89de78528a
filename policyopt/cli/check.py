"""``policyopt check``: properties of methods and of files."""

from __future__ import annotations

import json

from policyopt.cli.common import operands
from policyopt.qualified import need

CHECK = """\
usage: policyopt check NAME... [--json]

NAME is a method, a file of your own (my.py), or something in one (my.py:NAME, package.module:NAME, recipe.yaml).

Measures the properties of a method on random batches, in float64: what shifts and scales of the reward do, length bias,
weights at extreme ratios, bias off-policy, and whether gradient, padding, order and micro-batches are right.

Of a file of your own it checks every method (@method) and every part that none of them uses, in its place in a plain
GRPO. The file runs, like any script of yours. Exit code 1 when something is broken; what is only a
characteristic, such as a length bias, never fails.

  --json   print the reports as a JSON list"""


def run(args: list[str]) -> int:
    """Properties of methods and of files. Returns 1 where something is broken, else 0."""
    if not args or "-h" in args or "--help" in args:
        print(CHECK)
        return 0 if args else 2
    names = operands(args, "check", "methods, files")
    for name in names:
        need(name)
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
