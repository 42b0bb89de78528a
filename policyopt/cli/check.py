"""``policyopt check``: properties of methods and of files."""

from __future__ import annotations

import json

from policyopt.cli.common import operands
from policyopt.environments.names import prefixed
from policyopt.environments.worlds import WORLDS
from policyopt.errors import UserError
from policyopt.qualified import need, need_file

CHECK = """\
usage: policyopt check NAME... [--json] [--model FOLDER]

NAME is a method, a file of your own (my.py), or something in one (my.py:NAME, package.module:NAME, recipe.yaml), or an
environment by the name that --env takes (calculator, my_env.py:Name, agent:my_agent.py:run).

Measures the properties of a method on random batches, in float64: what shifts and scales of the reward do, length bias,
weights at extreme ratios, bias off-policy, and whether gradient, padding, order and micro-batches are right.

Of a file of your own it checks every method (@method) and every part that none of them uses, in its place in a plain
GRPO. The file runs, like any script of yours. Exit code 1 when something is broken; what is only a
characteristic, such as a length bias, never fails.

An environment is played with made-up actions. It has to begin alike by the same seed, share nothing between episodes,
survive what a model writes, never block, and say what can be read; what is only likely to be a mistake, such as a reward
that never varied, is said and does not fail.

  --json           print the reports as a JSON list
  --model FOLDER   whose words and chat template environments are played with; without it the embedded model's"""


def run(args: list[str]) -> int:
    """Properties of methods and of files. Returns 1 where something is broken, else 0."""
    if not args or "-h" in args or "--help" in args:
        print(CHECK)
        return 0 if args else 2
    model, args = _model(args)
    names = operands(args, "check", "methods, files, environments, --model FOLDER")
    for name in names:
        if (found := prefixed(name)) is not None:
            need_file(found[1])
        elif name not in WORLDS:
            need(name)
    from rich.console import Console

    from policyopt.lens.check.files import check_named
    from policyopt.lens.check.render import show

    text = None
    if model is not None:
        from policyopt.models.load import load_text

        text = load_text(model)[0]
    reports = [report for name in names for report in check_named(name, text)]
    if "--json" in args:
        print(json.dumps([r.to_dict() for r in reports], indent=1))
    else:
        console = Console(highlight=False)
        for report in reports:
            show(report, console)
    return 1 if any(r.broken for r in reports) else 0


def _model(args: list[str]) -> tuple[str | None, list[str]]:
    """The model that a line names, and the rest of it."""
    if "--model" not in args:
        return None, args
    at = args.index("--model")
    if at + 1 >= len(args):
        raise UserError("--model: name a folder or a hub id behind it")
    return args[at + 1], args[:at] + args[at + 2 :]
