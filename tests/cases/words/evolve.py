"""What cases call things in EVOLvE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.agents.evolve import min_frac, opt_frac, regret, ucb


def _guide(given: Mapping[str, Any]) -> dict[str, Any]:
    found = ucb(given["pulls"], given["reward_sum"], given["params"]["alpha"])
    return {"exploitation": list(found.exploit), "exploration_bonus": list(found.bonus), "action": found.action}


def _metrics(given: Mapping[str, Any]) -> dict[str, Any]:
    actions, means = given["action"], given["arm_mean"]
    return {
        "cumulative_regret": regret(actions, means),
        "min_frac": min_frac(actions, len(means)),
        "opt_frac": opt_frac(actions, means),
    }


CASES = {"sampler": _guide, "metric": _metrics}
