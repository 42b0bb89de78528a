"""``policyopt push``: push the model of a run to the hub."""

from __future__ import annotations

from pathlib import Path

from pydantic.dataclasses import dataclass

from policyopt.cli.common import options_of
from policyopt.errors import UserError
from policyopt.hub import check_repository, push

PUSH = """\
usage: policyopt push RUN OWNER/NAME [--best] [--public]

Pushes the model of the run in the folder RUN, with its card and its curves, to the hub of models. The token comes from the
environment (HF_TOKEN) or from `hf auth login`; a repository that is not there yet is made, and is private.

  --best     push the model that was best instead of the last one (see --checkpoints.best)
  --public   let everybody see a new repository"""


@dataclass(frozen=True)
class PushOptions:
    """What of a run is pushed, and who sees it."""

    best: bool = False
    """The model that was best instead of the last one."""
    public: bool = False
    """Let everybody see a new repository."""


def run(args: list[str]) -> int:
    """Push a model. Returns the exit code."""
    if not args or "-h" in args or "--help" in args:
        print(PUSH)
        return 0 if args else 2
    names = [a for a in args if not a.startswith("-")]
    if len(names) != 2:
        raise UserError("push takes the folder of a run and the id of a repository: policyopt push RUN OWNER/NAME")
    options = options_of(PushOptions(), [a for a in args if a.startswith("-")], "push")
    run, repository = Path(names[0]), names[1]
    try:
        check_repository(repository)
    except ValueError as error:
        raise UserError(f"push: {error}") from error
    model = run / ("best" if options.best else "model")
    if not (model / "config.json").is_file():
        advice = (
            "" if options.best else "; a run that has not ended has none: go on with it by policyopt train --resume"
        )
        raise UserError(f"push {run}: there is no model in {model}{advice}")
    try:
        print(push(model, run / "tensorboard", repository, public=options.public))
    except UserError as error:
        raise UserError(f"push {repository}: {error}") from error
    return 0
