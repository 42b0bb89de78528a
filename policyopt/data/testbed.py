"""The testbed ``ties``: several right answers, one of them worth a little more. Nothing here imports torch."""

from __future__ import annotations

import math
import random
import re
from typing import Any

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.errors import UserError
from policyopt.items import Task
from policyopt.judging.answers import find_answer

LETTERS = "abcde"


def _draw(chance: random.Random) -> Entry:
    """Five letters with a digit each, of which two or three have the largest.

    The worked solution names any of these, so a policy that was warm-started on solutions is undecided between them.
    """
    most = chance.randint(3, 9)
    best = sorted(chance.sample(LETTERS, chance.choice((2, 3))))
    options = " ".join(f"{x}{most if x in best else chance.randint(1, most - 1)}" for x in LETTERS)
    answer = chance.choice(best)
    return {
        "question": f"best of {options}",
        "steps": [f"most: {most}"],
        "answer": answer,
        "metadata": {"most": most, "best": best},
    }


def judge_ties(prompt: str, response: str, answer: str, epsilon: float = 0.0) -> dict[str, Any]:
    """1 for any letter with the largest digit, ``epsilon`` more for the first of them, 0 for the others."""
    value = {x: int(v) for x, v in re.findall(r"([a-z])(\d)", prompt)}
    best = [x for x, v in value.items() if v == max(value.values())]
    given = find_answer(response)
    right = given in best
    return {
        "score": right + epsilon * (given == best[0]),
        "correct": right,
        "formatted": given is not None,
        "reason": f"{given!r}, the best are {' '.join(best)}",
    }


TIES = Drawn(
    name="ties",
    summary="several right answers, one of them worth EPSILON more (ties:EPSILON): best of a3 b7 c1 d7 e2",
    draw=_draw,
    judge=judge_ties,
    max_tokens=32,
)


def ties_task(option: str, *, seed: int, heldout: int) -> Task:
    """The task ``ties``; ``option`` is epsilon as text, or empty for 0. Raises ``UserError`` for anything else."""
    try:
        epsilon = float(option or 0)
    except ValueError:
        epsilon = math.nan
    if not math.isfinite(epsilon):
        raise UserError(f"task ties:{option}: expected a finite number after the colon, for example ties:0.01")
    return TIES.task(seed=seed, heldout=heldout, epsilon=epsilon)
