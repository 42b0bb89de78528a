"""What cases call things in GHPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.guidance.ghpo import ghpo
from policyopt.objective import credit, shaped
from policyopt.parts.surrogate.contrast import row_credit
from policyopt.training.rows import to_batch

from ._scripted import Script, given_tokens, play, verdict


def _ladder(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rollout program of each group on the given outcomes by stage, and the credit of what it returned."""
    params, groups = given["params"], list(dict.fromkeys(given["group"]))
    hints = tuple(params["hint_ratios"])
    ratio: list[float] = []
    shown: list[int] = []
    rows, place = [], []
    for group, solution in zip(groups, given["solution_len"], strict=True):
        mine = [i for i, g in enumerate(given["group"]) if g == group]
        stages = zip(given["accuracy_by_stage"], given["format_by_stage"], strict=True)
        script = Script([[verdict(right[i], form[i]) for i in mine] for right, form in stages])
        drawn = play(ghpo(hints=hints, group_size=len(mine)).source, script, solution)
        stage, _ = script.drawn[drawn[0].tokens[-1]]
        ratio.append((0.0, *hints)[stage])
        shown.append(given_tokens(drawn[0]))
        rows += drawn
        place += mine
    recipe = ghpo(format_weight=params["format_weight"])
    recipe = recipe.set("advantage.eps", params["adv_eps"]).set("advantage.ddof", params.get("ddof", 1))
    verdicts = [row.verdict for row in rows if row.verdict is not None]
    batch = to_batch([()] * len(rows), rows, verdicts, [given["group"][i] for i in place], 1, torch.float64)
    credited = credit(recipe, shaped(recipe, batch))[torch.tensor(place).argsort()]
    return {"hint_ratio": ratio, "hint_len": shown, "reward": credited.reward, "advantage": row_credit(credited)}


CASES = {"advantage": _ladder}
