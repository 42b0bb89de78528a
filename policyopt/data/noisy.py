"""The testbed ``noisy-judge:RATE``: sums whose reward is wrong at a known rate. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from policyopt.data.drawn import Drawn
from policyopt.data.sums import drawn_sum, judge_answer
from policyopt.errors import UserError
from policyopt.items import Task

RATE = 0.2


def mistaken(prompt: str, response: str, rate: float) -> bool:
    """Whether the judge is wrong about a response: always the same for the same one, and as often as the rate says."""
    said = hashlib.blake2b(f"{prompt}\n{response}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(said, "big") < rate * 2**64


def judge_noisily(prompt: str, response: str, answer: str, rate: float = RATE) -> dict[str, Any]:
    """``correct`` is the truth; the score is 1 for right and 0 for wrong, and at the given rate the other way round."""
    verdict = judge_answer(prompt, response, answer)
    if not mistaken(prompt, response, rate):
        return verdict
    return {**verdict, "score": 1 - verdict["score"], "reason": f"{verdict['reason']}, and the judge is mistaken"}


NOISY_JUDGE = Drawn(
    name="noisy-judge",
    summary=f"sums with a reward that is wrong at a rate (noisy-judge:RATE, {RATE:g} if unsaid): 9+6-1+4=?",
    draw=drawn_sum,
    judge=judge_noisily,
    max_tokens=48,
    warm_start={"steps": 700},
)


def noisy_judge_task(option: str, *, seed: int, heldout: int) -> Task:
    """The task ``noisy-judge``; ``option`` is the rate as text, or empty for :data:`RATE`. Raises ``UserError`` for anything but a
    share below 1/2."""
    try:
        rate = float(option or RATE)
    except ValueError:
        rate = math.nan
    if not 0 <= rate < 0.5:
        raise UserError(
            f"task noisy-judge:{option}: expected a share of at least 0 and below 0.5, for example noisy-judge:{RATE:g}"
        )
    return NOISY_JUDGE.task(seed=seed, heldout=heldout, rate=rate)
