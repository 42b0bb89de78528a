"""The testbed ``mixed-difficulty``: from trivial to hopeless in one stream. Nothing here imports torch."""

from __future__ import annotations

import random

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.data.sums import drawn_sum, judge_answer
from policyopt.judging.answers import answer_line

LEVELS = {"trivial": (2, 1.0), "easy": (3, 0.6), "middle": (4, 0.4), "hard": (6, 0.15), "hopeless": (9, 0.0)}
"""How many terms a sum of each level has, and how often the warm start sees such a sum worked out and not answered at once."""


def _draw(chance: random.Random) -> Entry:
    level = chance.choice(list(LEVELS))
    terms, worked = LEVELS[level]
    entry = drawn_sum(chance, terms)
    shown = entry["steps"] if chance.random() < worked else []
    return {
        **entry,
        "hasty": "\n".join([*shown, answer_line(entry["answer"])]),
        "source": level,
        "metadata": {"level": level},
    }


MIXED_DIFFICULTY = Drawn(
    name="mixed-difficulty",
    summary="sums of two to nine numbers, from always right to hardly ever: 9+6-1+4-2-7=?",
    draw=_draw,
    judge=judge_answer,
    max_tokens=88,
    warm_start={"terse": 1.0},
)
"""The level is the source of a question, so that the log has the accuracy of each. Where a group is all right or all wrong there is
nothing to learn: what chooses prompts has much to win here."""
