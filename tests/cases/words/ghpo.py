"""What cases call things in GHPO."""

from __future__ import annotations

from policyopt.lens.case import Run
from policyopt.rows import Batch

from ._grown import on_batch
from ._scripted import Script, drawn_batch, given_tokens, members, play, verdict


def _ladder(run: Run) -> Batch:
    """The rollout program of each group on the given outcomes by stage."""
    given = run.given
    run.notes.update(hint_ratio=[], hint_len=[])
    drawn = []
    for (_, mine), solution in zip(members(given["group"]), given["solution_len"], strict=True):
        stages = zip(given["accuracy_by_stage"], given["format_by_stage"], strict=True)
        script = Script([[verdict(right[i], form[i]) for i in mine] for right, form in stages])
        rows = play(run.recipe.source, script, solution, size=len(mine))
        stage, _ = script.drawn[rows[0].tokens[-1]]
        run.notes["hint_ratio"].append((0.0, *run.params["hint_ratios"])[stage])
        run.notes["hint_len"].append(given_tokens(rows[0]))
        drawn.append((mine, rows))
    return drawn_batch(drawn, given["group"])


COLUMNS = dict.fromkeys(("accuracy_by_stage", "format_by_stage", "solution_len"), ("", "free"))
PARAMS = {"hint_ratios": lambda ratios: {"hints": tuple(ratios)}}
KEYS = on_batch(
    _ladder,
    {
        "hint_ratio": lambda run: run.notes["hint_ratio"],
        "hint_len": lambda run: run.notes["hint_len"],
    },
)
