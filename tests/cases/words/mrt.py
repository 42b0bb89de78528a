"""What cases call things in MRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np


def progress(success: Sequence[float]) -> list[float]:
    r"""What each episode of a thought adds to the probability of success when it has to stop there,
    :math:`J_j - J_{j-1}`; the first number is that of no episode. Source: MRT, arXiv:2503.07572."""
    return [after - before for before, after in pairwise(success)]


def progress_reward(outcome: float, success: Sequence[float], alpha: float) -> float:
    """The reward of the outcome, and ``alpha`` times the progress of all episodes."""
    return outcome + alpha * sum(progress(success))


def regret(tokens: Sequence[float], success: Sequence[float], cutoff: float) -> float:
    r"""Normalised cumulative regret at a budget C, :math:`1 - \frac1C\int_0^C J`.

    J goes linearly from (0, 0) through the points (tokens, success), in rising order, and stays flat after the last
    one. Source: MRT, arXiv:2503.07572.
    """
    x, y = np.array([0.0, *tokens]), np.array([0.0, *success])
    inside = x < cutoff
    x, y = np.append(x[inside], cutoff), np.append(y[inside], np.interp(cutoff, x, y))
    return 1 - float(np.trapezoid(y, x)) / cutoff


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
