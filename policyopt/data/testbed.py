"""Testbeds: questions that are no puzzle, made to show what an objective does. Nothing here imports torch."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from typing import Any

from policyopt.data.builtin import Builtin, Entry
from policyopt.errors import UserError
from policyopt.items import JudgeSpec, Task
from policyopt.judging.answers import find_answer

LETTERS = "abcde"

TIES = Builtin(
    summary="several right answers, one of them worth EPSILON more (ties:EPSILON): best of a3 b7 c1 d7 e2",
    config={},
    prompt=lambda e: e["question"],
    steps=lambda e: ([f"most: {e['metadata']['most']}"], e["answer"]),
    max_tokens=32,
)


@dataclass(frozen=True)
class TiesSource:
    """Entry i of a seed: five letters with a digit each, of which two or three have the largest.

    The worked solution names any of these, so a policy that was warm-started on solutions is undecided between them.
    """

    seed: int
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Entry:
        draw = random.Random(f"ties {self.seed} {index}")
        most = draw.randint(3, 9)
        best = sorted(draw.sample(LETTERS, draw.choice((2, 3))))
        options = " ".join(f"{x}{most if x in best else draw.randint(1, most - 1)}" for x in LETTERS)
        return {"question": f"best of {options}", "answer": draw.choice(best), "metadata": {"most": most, "best": best}}


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


def ties_task(option: str, *, seed: int, heldout: int) -> Task:
    """The task ``ties``; ``option`` is epsilon as text, or empty for 0. Raises ``UserError`` for anything else."""
    from policyopt.data.reasoning import LENGTH, Questions, heldout_questions

    try:
        epsilon = float(option or 0)
    except ValueError:
        epsilon = math.nan
    if not math.isfinite(epsilon):
        raise UserError(f"task ties:{option}: expected a finite number after the colon, for example ties:0.01")
    size = 5 * LENGTH - 1
    held = heldout_questions("ties", TiesSource(-1, size), heldout, TIES)
    judge = JudgeSpec(f"{__name__}:{judge_ties.__name__}", {"epsilon": epsilon})
    return Task("ties", Questions("ties", TiesSource(seed, size), LENGTH, TIES), held, judge, TIES.max_tokens)
