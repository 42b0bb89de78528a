"""The testbed ``cyclic``: rock, paper, scissors, where no answer is the best one. Nothing here imports torch."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.judging.answers import answer_line, find_answer

LOSES = {"rock": "paper", "paper": "scissors", "scissors": "rock"}
"""What beats each of the three."""
HABIT = {"rock": 0.5, "paper": 0.2, "scissors": 0.3}
"""How often the worked solutions, and so the policy at the start, play each."""


def _draw(chance: random.Random) -> Entry:
    """A number that says nothing, and a move by habit."""
    answer = chance.choices(list(HABIT), list(HABIT.values()))[0]
    return {
        "question": f"round {chance.randint(1000, 9999)}",
        "steps": [],
        "answer": answer,
        "metadata": {},
        "rivals": tuple(map(answer_line, LOSES)),
    }


def prefers(a: str | None, b: str | None) -> float:
    """1 where move a beats move b, 1/2 where they tie; what is no move loses to every move."""
    if a == b or (a not in LOSES and b not in LOSES):
        return 0.5
    return float(b not in LOSES or (a in LOSES and LOSES[b] == a))


def bradley_terry(habit: Mapping[str, float] = HABIT, steps: int = 2000, rate: float = 1.0) -> dict[str, float]:
    r"""The scores r, of mean 0, under which what was seen is likeliest: comparisons of moves that were drawn by ``habit``.

    .. math:: \max_r \sum_{i,j} h_i h_j P_{ij} \log\sigma(r_i - r_j)

    ``steps`` steps of gradient ascent at ``rate``. Comparisons run in a circle and scores do not, so which move comes out best is
    a matter of how often each was played: the one that beats the commonest.
    """
    score = dict.fromkeys(habit, 0.0)
    for _ in range(steps):
        slope = {
            i: sum(
                habit[i] * habit[j] * (prefers(i, j) - 1 / (1 + math.exp(score[j] - score[i]))) for j in habit if j != i
            )
            for i in habit
        }
        score = {i: score[i] + rate * slope[i] for i in habit}
    return score


_SCORE = bradley_terry()
_NO_MOVE = min(_SCORE.values()) - 1


def judge_cyclic(prompt: str, responses: Sequence[str]) -> dict[str, Any]:
    """Who beats whom, and as the reward of each response what a Bradley-Terry model made of comparisons by habit; correct is
    what is a move."""
    moves = [find_answer(text) for text in responses]
    return {
        "score": [[prefers(a, b) for b in moves] for a in moves],
        "reward": [_SCORE.get(str(move), _NO_MOVE) for move in moves],
        "correct": [move in LOSES for move in moves],
        "formatted": [move is not None for move in moves],
    }


CYCLIC = Drawn(
    name="cyclic",
    summary="rock, paper, scissors: comparisons in a circle, and a reward that was fitted to them: round 4711",
    draw=_draw,
    judge=judge_cyclic,
    max_tokens=24,
    warm_start={"steps": 150, "terse": 0.0},
)
"""A policy that plays one move loses to another one every time; one that plays all three alike cannot be beaten. A method that reads
the reward goes to the move that it rates highest; one that reads comparisons has a reason to leave it when others get there."""
