"""The testbed ``context-use``: the answer stands in the question, and a habit says something else. Nothing here imports torch."""

from __future__ import annotations

import random

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.data.sums import judge_answer
from policyopt.judging.answers import answer_line

HABIT = {"ann": 7, "bob": 2, "cat": 9, "dan": 4, "eve": 6, "fay": 3, "gus": 8, "hal": 5}
"""What everybody knows that each of them has."""
USUAL = 0.25
"""How often somebody has what everybody knows."""
LINES = 4


def _draw(chance: random.Random) -> Entry:
    """Four lines of who has how many, and one of them asked for. The worked solution quotes its line; somebody in a hurry answers by
    habit."""
    who = chance.sample(list(HABIT), LINES)
    has = {x: HABIT[x] if chance.random() < USUAL else chance.randint(1, 9) for x in who}
    asked = chance.choice(who)
    return {
        "question": "\n".join([*(f"{x} has {n}" for x, n in has.items()), f"{asked}?"]),
        "steps": [f"{asked} has {has[asked]}"],
        "answer": str(has[asked]),
        "hasty": answer_line(str(HABIT[asked])),
        "metadata": {"asked": asked, "habit": HABIT[asked]},
    }


CONTEXT_USE = Drawn(
    name="context-use",
    summary="who has how many, said in one of four lines, and a habit that says otherwise: ann has 3 ... ann?",
    draw=_draw,
    judge=judge_answer,
    max_tokens=32,
    warm_start={"steps": 600, "terse": 0.65},
)
"""A policy that answers without looking is right on one question in three."""
