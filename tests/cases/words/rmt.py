"""What cases call things in RMT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.reward.rmt import rmt
from policyopt.objective import credit, shaped
from policyopt.rows import make_batch

from ._scheduled import scheduled


def _schedule(given: Mapping[str, Any]) -> dict[str, Any]:
    """The budget and the tiers at some steps, and the credit of one group at another step."""
    recipe = rmt(**given["params"])
    at = [scheduled(recipe, step) for step in given["step"]]
    now = scheduled(recipe, given["reward_step"])
    length = torch.tensor(given["length"], dtype=torch.float64)
    batch = make_batch(
        mask=torch.ones(len(length), 1, dtype=torch.float64),
        group=torch.zeros(len(length), dtype=torch.long),
        true_length=length,
        correct=torch.tensor(given["match"], dtype=torch.float64),
        reward=torch.zeros(len(length), dtype=torch.float64),
    )
    after = credit(now, shaped(now, batch))
    return {
        "budget": [r.get("shape.LengthReward.reference") for r in at],
        "tier_probs": [list(r.get("weight.TierWeight.share")) for r in at],
        "budget_at_reward_step": now.get("shape.LengthReward.reference"),
        "length_reward": now.get("shape.LengthReward").value(batch),
        "reward": after.reward,
        "advantage": after.advantage[:, 0],
    }


CASES = {"schedule": _schedule}
