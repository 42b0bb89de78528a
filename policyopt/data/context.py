"""The testbed ``context-use``: the answer stands in the question, and a habit says something else. Nothing here imports torch."""

from __future__ import annotations

import random

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.data.sums import judge_answer
from policyopt.judging.answers import answer_line

HABIT = {"a": 7, "b": 2, "c": 9, "d": 4, "e": 6, "f": 3, "g": 8, "h": 5}
"""What everybody knows of each letter."""
USUAL = 0.25
"""How often a letter has what everybody knows."""
LINES = 4


def _draw(chance: random.Random) -> Entry:
    """Four lines with a letter and its number, and one of them asked for. The worked solution quotes its line; somebody in a hurry answers by
    habit."""
    letters = chance.sample(list(HABIT), LINES)
    has = {x: HABIT[x] if chance.random() < USUAL else chance.randint(1, 9) for x in letters}
    asked = chance.choice(letters)
    return {
        "question": "\n".join([*(f"{x}{n}" for x, n in has.items()), f"{asked}?"]),
        "steps": [f"{asked}{has[asked]}"],
        "answer": str(has[asked]),
        "hasty": answer_line(str(HABIT[asked])),
        "metadata": {"asked": asked, "habit": HABIT[asked]},
    }


CONTEXT_USE = Drawn(
    name="context-use",
    summary="the number of a letter, which one of four lines says and a habit knows otherwise: a3 f8 c1 d7 f?",
    draw=_draw,
    judge=judge_answer,
    max_tokens=24,
    warm_start={"steps": 1000, "terse": 0.5},
)
"""A policy that answers without looking is right on one question in three."""
