"""What cases call things in MRT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyopt.methods.exit.mrt import progress, progress_reward, regret


def _bonus(given: Mapping[str, Any]) -> dict[str, Any]:
    """The progress of episodes."""
    steps = progress(given["success_prob"])
    alpha = given["params"]["alpha"]
    return {
        "progress": steps,
        "reward": progress_reward(given["outcome"], given["success_prob"], alpha),
        "telescoped": sum(steps),
    }


def _stopped(given: Mapping[str, Any]) -> dict[str, Any]:
    """The mean reward of stopping is given by prompt."""
    baseline = [given["termination_reward"][str(g)] for g in given["group"]]
    return {"group": given["group"], "reward": given["reward"], "baseline_reward": baseline}


GIVEN = {"advantage": _stopped}
CASES = {
    "reward": _bonus,
    "metric": lambda given: {
        "regret": [regret(given["tokens"], given["success_prob"], cutoff) for cutoff in given["cutoff"]]
    },
}
