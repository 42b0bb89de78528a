"""The testbed ``mixed-difficulty``: from trivial to hopeless in one stream. Nothing here imports torch."""

from __future__ import annotations

import random

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.data.sparse import judge_sums, sums_entry

LEVELS = {"trivial": (3, 0.0), "easy": (4, 0.15), "middle": (6, 0.3), "hard": (8, 0.5), "hopeless": (12, 0.65)}
"""How many running sums a question of each level has, and how likely each step of a warm start's solution is spoilt."""


def _draw(chance: random.Random) -> Entry:
    level = chance.choice(list(LEVELS))
    entry = sums_entry(chance, *LEVELS[level])
    return {**entry, "source": level, "metadata": {**entry["metadata"], "level": level}}


MIXED_DIFFICULTY = Drawn(
    name="mixed-difficulty",
    summary="running sums of five levels, from always right to never right: sums a3 b8 c4 d1",
    draw=_draw,
    judge=judge_sums,
    max_tokens=80,
    warm_start={"steps": 600, "terse": 1.0},
)
"""The level is the source of a question, so that the log has the accuracy of each. Where a group is all right or all wrong there is
nothing to learn: what chooses prompts has much to win here."""
