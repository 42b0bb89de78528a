"""The testbed ``shortcut``: an answer that stands there and is often right, and working that is learnt only by whoever goes on with it. Nothing here
imports torch."""

from __future__ import annotations

import random

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.data.sums import drawn_sum, judge_answer, worked_out
from policyopt.judging.answers import answer_line

TERMS, MOST = 4, 9
TOLD = 0.75
"""How often the answer that stands beside the question is the right one."""
AWAY = (-4, -3, -2, -1, 1, 2, 3, 4)
"""How far an answer, or a step with a slip, is off."""
SLIPS = 0.4
"""How often somebody in a hurry works the sum out, with a slip in one step, and does not take the answer that stands there."""


def _draw(chance: random.Random) -> Entry:
    """A sum, and beside it somebody's answer. Somebody in a hurry takes that, or makes a slip on the way."""
    entry = drawn_sum(chance, TERMS, MOST)
    told = str(int(entry["answer"]) + (0 if chance.random() < TOLD else chance.choice(AWAY)))
    written, end = [entry["question"].replace("?", told)], told
    if chance.random() < SLIPS:
        written, end = worked_out(entry["question"], (chance.randrange(TERMS - 1), chance.choice(AWAY)))
    return {
        **entry,
        "question": f"{entry['question']} ({told})",
        "hasty": "\n".join([*written, answer_line(end)]),
        "metadata": {"told": int(told)},
    }


SHORTCUT = Drawn(
    name="shortcut",
    summary="a sum of four numbers and somebody's answer to it, which is right three times in four: 5-4+3+2=? (6)",
    draw=_draw,
    judge=judge_answer,
    max_tokens=48,
    warm_start={"terse": 0.65, "steps": 1200},
)
"""Working begins no better than the answer that stands there, because two times in five it has a slip somewhere; that can be unlearnt, and the share of
right answers that stand there cannot. Right and wrong working begin alike and part at the slip."""
