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
    """The progress of the episodes of one thought, or of each of several."""
    success, outcome = given["success_prob"], given["outcome"]
    alpha = given["params"]["alpha"]
    if isinstance(outcome, list):
        rows = [_bonus({**given, "success_prob": s, "outcome": r}) for s, r in zip(success, outcome, strict=True)]
        return {key: [row[key] for row in rows] for key in ("progress", "reward", "telescoped")}
    steps = progress(success)
    return {
        "progress": steps,
        "reward": progress_reward(outcome, success, alpha),
        "telescoped": sum(steps),
    }


def _stopped(given: Mapping[str, Any]) -> dict[str, Any]:
    """The mean reward of stopping is given by prompt; with an ``alpha`` rewards have the progress of their thoughts."""
    known = {**given, **_bonus({**given, "outcome": given["reward"]})} if "success_prob" in given else given
    stop = given["termination_reward"]
    baseline = [stop[str(g)] if isinstance(stop, Mapping) else stop[g] for g in given["group"]]
    return {"group": given["group"], "reward": known["reward"], "baseline_reward": baseline, **_shown(known)}


def _shown(known: Mapping[str, Any]) -> dict[str, Any]:
    """What a case says beside what the method reads."""
    return {name: known[name] for name in ("progress", "telescoped", "params") if name in known}


GIVEN = {"advantage": _stopped}
COLUMNS = dict.fromkeys(("progress", "telescoped"), ("", "free"))
PARAMS = {"alpha": None}
KEYS = {name: lambda run, name=name: run.given[name] for name in COLUMNS}
CASES = {
    "reward": _bonus,
    "metric": lambda given: {
        "regret": [regret(given["tokens"], given["success_prob"], cutoff) for cutoff in given["cutoff"]]
    },
}
