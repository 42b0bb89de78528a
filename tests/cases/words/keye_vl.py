"""What cases call things in Kwai Keye-VL 1.5."""

from __future__ import annotations

from policyopt.lens.case import Run

from ._scripted import Script, given_tokens, play, verdict


def _minimal_hint(run: Run) -> list[int | None]:
    """The rollout program of each prompt on the given outcomes by level; the plain prompt is level 0."""
    found: list[int | None] = []
    for success in run.given["success_by_level"]:
        drawn = play(run.recipe.source, Script([[verdict(x)] * 2 for x in success]), run.params["levels"] + 1)
        solved = drawn[0].verdict is not None and drawn[0].verdict.correct
        found.append(given_tokens(drawn[0]) if solved else None)
    return found


COLUMNS = {"success_by_level": ("", "free")}
KEYS = {"level": _minimal_hint}
