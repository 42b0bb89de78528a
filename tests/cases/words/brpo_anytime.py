"""What cases call things in BRPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from policyopt.methods.exit.brpo_anytime import BudgetRelative


def _credit(given: Mapping[str, Any]) -> dict[str, Any]:
    """Scores [thought][cut][answer] of one prompt."""
    params = given["params"]
    part = BudgetRelative(
        budgets=tuple(params["budgets"]),
        prior=params["prior"],
        inv_lambda=params.get("inv_lambda", 2.0),
        baseline=params.get("variance_reduction", "brpo"),
    )
    reward = torch.tensor(given["score"], dtype=torch.float64)
    score, group = reward.mean(-1), torch.zeros(len(reward), dtype=torch.long)
    count = torch.full_like(score, reward.shape[-1])
    returns, baseline = part.returns(score), part.baselines(score, group)
    return {
        "budget_prob": part.probability(score),
        "return": returns,
        "baseline": baseline,
        "think_advantage": returns - baseline,
        "summary_advantage": part.answered(reward, score, count, group),
    }


CASES = {"advantage": _credit}
