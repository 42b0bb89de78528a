"""``policyopt advise``: what is seen in a run, and what addresses it."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic.dataclasses import dataclass

from policyopt.cli.common import named, options_of
from policyopt.errors import UserError

ADVISE = """\
usage: policyopt advise [RUN...] [--symptom NAME] [--json]

Reads the logs of runs and says what is seen in them, with the numbers, and which settings and methods address it, each with
what came of its claim where that was replicated. Of the folder of a comparison it says in short what its runs show.

Without a RUN it lists the symptoms that it knows.

  --symptom NAME   what addresses a symptom, without a run; the beginning of a name stands for all that begin so
  --json           print it as JSON
  --markdown       print the page docs/choose.md"""


@dataclass(frozen=True)
class AdviseOptions:
    """What is seen in runs, and what addresses it."""

    symptom: str | None = None
    """What addresses a symptom, without a run; the beginning of a name stands for all that begin so."""
    json: bool = False
    """Print it as JSON."""
    markdown: bool = False
    """Print the page docs/choose.md."""


def run(args: list[str]) -> int:
    """Say what is seen in runs, or what addresses a symptom. Returns the exit code."""
    if {"-h", "--help"} & {*args}:
        print(ADVISE)
        return 0
    runs, line = named(args, AdviseOptions())
    options = options_of(AdviseOptions(), line, "advise")
    if runs and (options.symptom is not None or options.markdown):
        raise UserError("a RUN, --symptom and --markdown are three questions: ask one at a time")
    from rich.console import Console

    from policyopt.comparing.advise import show
    from policyopt.comparing.advise.diagnosis import advice
    from policyopt.comparing.advise.symptoms import SYMPTOMS, symptom

    out = Console(highlight=False)
    if runs:
        return _runs([*map(Path, runs)], options.json)
    symptoms = SYMPTOMS if options.symptom is None else symptom(options.symptom)
    if options.markdown:
        print(show.page())
    elif options.json:
        print(json.dumps([advice(s) for s in symptoms], indent=1))
    elif options.symptom is not None:
        show.show_symptoms(symptoms, out)
    else:
        show.show_all(out)
        print(
            "\n`policyopt advise RUN` says which of them a run shows, `policyopt advise --symptom NAME` what addresses one."
        )
    return 0


def _runs(folders: list[Path], as_json: bool) -> int:
    from rich.console import Console

    from policyopt.comparing.advise.diagnosis import diagnose, diagnose_cells, is_comparison
    from policyopt.comparing.advise.show import show, show_cells
    from policyopt.training.logging import read_run

    out = Console(highlight=False)
    found = [diagnose_cells(f) if is_comparison(f) else diagnose(read_run(f)) for f in folders]
    if as_json:
        every = [d for x in found for d in ([d for runs in x.values() for d in runs] if isinstance(x, dict) else [x])]
        print(json.dumps([d.to_dict() for d in every], indent=1))
        return 0
    for i, x in enumerate(found):
        if i:
            out.print()
        if isinstance(x, dict):
            show_cells(x, out)
        else:
            show([x], out)
    return 0
