"""What cases call things in MRT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policyopt.lens.case import Run
from policyopt.methods.exit.mrt import progress, progress_reward, regret
from policyopt.registry import get_method

HERE = Path(__file__).parent


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
    """Advantages over the mean reward of stopping, which is given by prompt."""
    baseline = [given["termination_reward"][str(g)] for g in given["group"]]
    columns = {"group": given["group"], "reward": given["reward"], "greedy_reward": baseline}
    return {"advantage": Run(get_method("mrt"), "other", columns, HERE).value("advantage", [0.0])}


CASES = {
    "reward": _bonus,
    "advantage": _stopped,
    "metric": lambda given: {
        "regret": [regret(given["tokens"], given["success_prob"], cutoff) for cutoff in given["cutoff"]]
    },
}
