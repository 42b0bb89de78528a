"""What cases call things in Kwai Keye-VL 1.5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.guidance.keye_vl import keye_vl

from ._scripted import Script, given_tokens, play, verdict

PARAMS = {"adv_eps": "advantage.eps"}


def _minimal_hint(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rollout program of each prompt on the given outcomes by level; the plain prompt is level 0."""
    levels = given["params"]["levels"]
    rollout = keye_vl(levels=levels, group_size=2).source
    found: list[int | None] = []
    for success in given["success_by_level"]:
        drawn = play(rollout, Script([[verdict(x)] * 2 for x in success]), levels + 1)
        solved = drawn[0].verdict is not None and drawn[0].verdict.correct
        found.append(given_tokens(drawn[0]) if solved else None)
    return {"level": found}


CASES = {"other": _minimal_hint}
