"""What cases call things in URPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.judge.urpo import PlayerAndReferee, urpo
from policyopt.objective import credit
from policyopt.rows import make_batch


def _reward(given: Mapping[str, Any]) -> dict[str, Any]:
    """What judgings are worth against a gold order."""
    params, gold = given["params"], given["gold_score"]
    recipe = urpo(invalid_reward=params["invalid_reward"], group_size=max(2, len(given["predicted_score"])))
    recipe = recipe.set("advantage.inner.eps", params["adv_eps"]).set("advantage.inner.ddof", params["ddof"])
    referee: PlayerAndReferee = recipe.source  # type: ignore[assignment]
    reward = [referee.verdict(scores, gold).score for scores in given["predicted_score"]]
    batch = make_batch(
        mask=torch.ones(len(reward), 1, dtype=torch.float64),
        group=torch.tensor(given["group"]),
        origin=torch.ones(len(reward), dtype=torch.long),
        reward=torch.tensor(reward, dtype=torch.float64),
    )
    return {"reward": batch.reward, "advantage": credit(recipe, batch).advantage[:, 0]}


CASES = {"reward": _reward}
