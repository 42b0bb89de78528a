"""The testbed ``biased-length``: right answers of very different lengths. Nothing here imports torch."""

from __future__ import annotations

import random

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.data.sparse import judge_sums, sums_entry
from policyopt.judging.answers import answer_line

LENGTHS = {"short": 3, "long": 12}
"""How many running sums a question of each kind has."""
WAYS = (0.3, 0.35, 0.35)
"""How often a warm start's solution is worked out rightly, is an answer alone, and has slips."""
SLIPS = 2.0
"""How many of these, on average."""


def _draw(chance: random.Random) -> Entry:
    """A solution of three lines or of twelve; and what somebody in a hurry writes: the same, the answer line alone, or all lines with a
    slip. A wrong answer is thus short or long, whatever the question."""
    kind = chance.choice(list(LENGTHS))
    entry = sums_entry(chance, LENGTHS[kind], SLIPS / LENGTHS[kind])
    alone = answer_line(entry["answer"])
    worked = "\n".join([*entry["steps"], alone])
    hasty = chance.choices([worked, alone, entry["hasty"]], WAYS)[0]
    return {**entry, "source": kind, "hasty": hasty}


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
