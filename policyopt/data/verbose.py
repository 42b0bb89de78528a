"""The testbed ``verbose``: right working with padding that can be left out. Nothing here imports torch."""

from __future__ import annotations

import random

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.data.sums import drawn_sum, judge_answer
from policyopt.judging.answers import answer_line

PADDING = ("let me see", "so far so good", "going on", "step by step")
"""Lines that say nothing."""


def _draw(chance: random.Random) -> Entry:
    """A sum whose working has a line of padding, or two, before half of the steps; the answer alone has none."""
    entry = drawn_sum(chance)
    padded = [x for step in entry["steps"] for x in (*chance.choices(PADDING, k=chance.choice((0, 0, 1, 2))), step)]
    needed = len("\n".join([*entry["steps"], answer_line(entry["answer"])]))
    return {**entry, "steps": padded, "metadata": {"needed": needed}}


VERBOSE = Drawn(
    name="verbose",
    summary="sums of four numbers, whose working is full of lines that say nothing: 9+6-1+4=?",
    draw=_draw,
    judge=judge_answer,
    max_tokens=144,
    warm_start={"steps": 700, "terse": 0.15},
)
