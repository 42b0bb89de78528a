"""The testbed ``verbose``: right working with padding that can be left out. Nothing here imports torch."""

from __future__ import annotations

import random

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.data.sums import drawn_sum, judge_answer
from policyopt.judging.answers import answer_line

PADDING = ("let me see", "let me go on")
"""Lines that say nothing; they begin alike, so that a step without one is the rarer choice for a greedy answer too."""


def _draw(chance: random.Random) -> Entry:
    """A sum whose working has a line of padding before three steps in four; the answer alone has none."""
    entry = drawn_sum(chance)
    padded = [x for step in entry["steps"] for x in (*chance.choices(PADDING, k=chance.choice((0, 1, 1, 1))), step)]
    needed = len("\n".join([*entry["steps"], answer_line(entry["answer"])]))
    return {**entry, "steps": padded, "metadata": {"needed": needed}}


VERBOSE = Drawn(
    name="verbose",
    summary="sums of four numbers, whose working is full of lines that say nothing: 9+6-1+4=?",
    draw=_draw,
    judge=judge_answer,
    max_tokens=80,
    # Half of a solution is padding: in twice as many steps the model sees as many sums as with other tasks.
    warm_start={"terse": 0.1, "steps": 2000},
)
