"""What the cases of pref-grpo call things."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

WON = {0: 0.5, 1: 1.0, 2: 0.0}
"""The probability that the first of two wins, by who was called better: neither, the first, the second."""


def rows(given: Mapping[str, Any]) -> dict[str, Any]:
    """A case with its comparisons as the column ``beats``."""
    n = len(given["group"])
    beats = [[math.nan] * n for _ in range(n)]
    for i, j, outcome in given["comparisons"]:
        beats[i][j], beats[j][i] = WON[outcome], 1 - WON[outcome]
    return {"beats": beats, **{name: x for name, x in given.items() if name != "comparisons"}}


def _alone(run: Any, name: str) -> Any:
    """The advantage that one reward makes by itself."""
    return run.part("advantage").inner._of(name, run.shaped)


GIVEN = {"advantage": rows}
COLUMNS = {"pointwise_reward": ("component[pointwise]", "row")}
PARAMS = {
    "weights": lambda w: {"advantage.inner.weights": (("reward", w[0]), ("pointwise", w[1]))},
    "adv_clip": "most",
    "eps": "advantage.inner.inner.eps",
}
KEYS = {
    "win_rate": lambda run: run.shaped.reward,
    "advantage_pairwise": lambda run: _alone(run, "reward"),
    "advantage_pointwise": lambda run: _alone(run, "pointwise"),
}
