"""The testbed ``many-answers``: two right answers to each question, and no way to know which. Nothing here imports torch."""

from __future__ import annotations

import random
import re
from typing import Any

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.judging.answers import answer_line, find_answer

PRIMES = (3, 7, 11, 13)
OTHERS = (2, 4, 5, 6, 8, 9)
"""What somebody in a hurry names; never right."""
PAIRS = {(3, 7): 5, (3, 11): 3, (3, 13): 3, (7, 11): 2, (7, 13): 1, (11, 13): 1}
"""Which two of the primes divide a number, and how often: 3 divides eleven in fifteen, 7 eight, 11 six, 13 five."""


def _draw(chance: random.Random) -> Entry:
    """A number of five digits that exactly two of the primes divide; the worked solution names either of them."""
    pair = chance.choices(list(PAIRS), list(PAIRS.values()))[0]
    product, others = pair[0] * pair[1], [p for p in PRIMES if p not in pair]
    number = next(
        n for n in iter(lambda: product * chance.randint(10_000 // product + 1, 99_999 // product), 0)
        if all(n % p for p in others)
    )  # fmt: skip
    answer = str(chance.choice(pair))
    return {
        "question": f"divisor of {number}",
        "steps": [f"try {answer}"],
        "answer": answer,
        "hasty": answer_line(str(chance.choice(OTHERS))),
        "metadata": {"right": list(pair)},
    }


def judge_divisor(prompt: str, response: str, answer: str) -> dict[str, Any]:
    """1 for any of 3, 7, 11 and 13 that divides the number, else 0."""
    (number,) = map(int, re.findall(r"\d+", prompt))
    right = [str(p) for p in PRIMES if number % p == 0]
    given = find_answer(response)
    return {
        "score": float(given in right),
        "correct": given in right,
        "formatted": given is not None,
        "reason": f"{given!r}, right are {' '.join(right)}",
    }


MANY_ANSWERS = Drawn(
    name="many-answers",
    summary="which of 3, 7, 11 and 13 divides a number; two do, and a small model can only guess: divisor of 46410",
    draw=_draw,
    judge=judge_divisor,
    max_tokens=24,
    warm_start={"steps": 300, "terse": 0.2},
)
"""A policy that always says 3 is right on three questions in four, however often it is asked; one that guesses among all four is
right on one in two, and with four guesses on nearly all."""
