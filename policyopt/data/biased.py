"""The testbed ``biased-length``: right answers of very different lengths. Nothing here imports torch."""

from __future__ import annotations

import random

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.data.sparse import judge_sums, sums_entry
from policyopt.judging.answers import answer_line

LENGTHS = {"short": 3, "long": 12}
"""How many running sums a question of each kind has."""
WORKED, TERSE = 0.3, 0.35
"""How often a warm start's solution is worked out rightly, and how often it is an answer alone; the rest slips once."""


def _draw(chance: random.Random) -> Entry:
    """A solution of three lines or of twelve; and what somebody in a hurry writes: the same, the answer line alone, or all lines with a
    slip. A wrong answer is thus short or long, whatever the question."""
    kind = chance.choice(list(LENGTHS))
    entry = sums_entry(chance, LENGTHS[kind], 2 / LENGTHS[kind])
    way = chance.random()
    if way < WORKED:
        entry["hasty"] = "\n".join([*entry["steps"], answer_line(entry["answer"])])
    elif way < WORKED + TERSE:
        entry["hasty"] = answer_line(entry["answer"])
    return {**entry, "source": kind}


BIASED_LENGTH = Drawn(
    name="biased-length",
    summary="three running sums or twelve, worked out, spoilt or left out: sums a3 b8 c4",
    draw=_draw,
    judge=judge_sums,
    max_tokens=80,
    warm_start={"steps": 600, "terse": 1.0},
)
"""The answer alone is never enough. Where the loss of a response is divided by its length, a token of a long answer weighs a fraction
of one of a short answer, right or wrong."""
