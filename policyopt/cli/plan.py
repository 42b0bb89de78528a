"""``policyopt train plan.yaml``: runs that follow one another."""

from __future__ import annotations

from typing import Any

from policyopt.errors import UserError
from policyopt.files import Malformed, parse_yaml

PLAN = """\
usage: policyopt train PLAN.yaml [--out DIR] [--FIELD VALUE ...]
       policyopt train --resume DIR

Carries out a plan: stages that follow one another, each an ordinary run that begins with the model of the one before, and may learn from
what it answered. docs/plans.md says what stands in the file.

  --out DIR         folder of the plan; unset: runs/NAME, numbered when it exists
  --accept-changes  resume although data, code or models have changed since
  --FIELD VALUE     a field of every stage, before what the file says: --steps 5, --seed 3, --optim.lr 1e-4"""


def run(path: str | None, resume: str | None, line: list[str]) -> int:
    """Carry out a plan, or go on with that of a folder, and say what came of it. Returns the exit code."""
    if {"-h", "--help"} & {*line}:
        print(PLAN)
        return 0
    over = fields(line)
    accept = bool(over.pop("accept_changes", False))
    out = over.pop("out", None)
    if resume is not None and over:
        raise UserError(f"--{next(iter(over))}: the stages of {resume} go on as they were planned; leave it out")
    from policyopt.stages.carry import run_plan

    if resume is not None:
        found = run_plan(resume=resume, out=out, accept_changes=accept)
    else:
        assert path is not None
        found = run_plan(path, out=out, accept_changes=accept, **over)
    from policyopt.stages.terminal import show

    show(found)
    return 128 + found.signal if found.stopped else 0


def fields(line: list[str]) -> dict[str, Any]:
    """The fields on a line: ``--steps 5``, ``--optim.lr=1e-4``, ``--lora``.

    Raises :class:`~policyopt.errors.UserError` for a word that belongs to none.
    """
    found: dict[str, Any] = {}
    name = ""
    for word in line:
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
            name = name.replace("-", "_")
            found[name] = _value(value) if equals else True
        elif name and found[name] is True:
            found[name] = _value(word)
        else:
            raise UserError(f"{word!r}: expected --FIELD VALUE; a plan is one file")
    return found


def _value(word: str) -> Any:
    try:
        value = parse_yaml(word)
    except Malformed:
        return word
    return word if isinstance(value, dict | list) else value
