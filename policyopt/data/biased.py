"""The testbed ``biased-length``: right answers of very different lengths. Nothing here imports torch."""

from __future__ import annotations

import random

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.data.sums import drawn_sum, judge_answer

TERMS = {"short": 3, "long": 7}
"""How many terms a sum of each kind has; its working has a line less."""


def _draw(chance: random.Random) -> Entry:
    kind = chance.choice(list(TERMS))
    return {**drawn_sum(chance, TERMS[kind]), "source": kind}


BIASED_LENGTH = Drawn(
    name="biased-length",
    summary="sums of three numbers or of seven, whose working is short or long: 9+6-1=?",
    draw=_draw,
    judge=judge_answer,
    max_tokens=72,
    warm_start={"terse": 0.6},
)
"""An answer at once is mostly wrong, and the working of the one kind is three times as long as that of the other. Where the loss of a
response is divided by its length, a token of a long one weighs a third of one of a short one, right or wrong."""
