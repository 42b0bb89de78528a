"""What cases call things in Scaf-GRPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.guidance.scaf_grpo import scaf_grpo
from policyopt.objective import credit
from policyopt.parts.surrogate.contrast import row_credit
from policyopt.training.rows import to_batch

from ._scripted import Script, given_tokens, play, verdict


def _rescue(given: Mapping[str, Any]) -> dict[str, Any]:
    """The rollout program of each group on the given outcomes, and the credit of what it returned."""
    params, groups = given["params"], list(dict.fromkeys(given["group"]))
    chosen: list[int | None] = []
    replaced: list[int | None] = []
    rows, place = [], []
    for group in groups:
        mine = [i for i, g in enumerate(given["group"]) if g == group]
        asked = zip(given["hint_group"], given["hint_level"], given["hint_reward"], strict=True)
        hints = sorted((level, reward) for g, level, reward in asked if g == group)
        recipe = scaf_grpo(levels=max(1, len(hints)), warmup_steps=params["warmup_steps"], group_size=len(mine))
        plain = [verdict(given["reward"][i]) for i in mine]
        script = Script([plain, *([verdict(reward)] for _, reward in hints)])
        drawn = play(recipe.source, script, len(hints) + 1, params["step"] - 1)
        rescued = [i for i, response in enumerate(drawn) if given_tokens(response)]
        replaced.append(rescued[0] if rescued else None)
        chosen.append(hints[given_tokens(drawn[rescued[0]]) - 1][0] if rescued else None)
        rows += drawn
        place += mine
    verdicts = [row.verdict for row in rows if row.verdict is not None]
    batch = to_batch([()] * len(rows), rows, verdicts, [given["group"][i] for i in place], 1, torch.float64)
    recipe = scaf_grpo().set("advantage.eps", params["adv_eps"]).set("advantage.ddof", params.get("ddof", 1))
    credited = credit(recipe, batch)[torch.tensor(place).argsort()]
    return {
        "chosen_level": chosen,
        "replaced_row": replaced,
        "reward": credited.reward,
        "advantage": row_credit(credited),
    }


CASES = {"advantage": _rescue}
