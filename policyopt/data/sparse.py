"""The testbed ``sparse-hard``: a long chain of small steps, and a habit that spoils most of them. Nothing here imports
torch."""

from __future__ import annotations

import random
import re
from typing import Any

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.judging.answers import answer_line, find_answer

LETTERS = "abcdefghijkl"
SLIP = 0.65
"""How likely each step of a hasty solution is spoilt."""


def running_sums(digits: list[int], slips: list[bool]) -> tuple[list[str], str]:
    """``a3=3``, ``b8=1``, ``c4=5``: the running sum without its tens, a line for each digit; the answer is the last one.
    Where it slips, the sum before is forgotten and the digit stands alone; the next step goes on from there."""
    total, lines = 0, []
    for letter, digit, slip in zip(LETTERS, digits, slips, strict=True):
        total = digit if slip else (total + digit) % 10
        lines.append(f"{letter}{digit}={total}")
    return lines, str(total)


def _draw(chance: random.Random) -> Entry:
    """Twelve digits to sum up, and the solution of somebody in a hurry, who slips."""
    digits = [chance.randint(1, 9) for _ in LETTERS]
    slips = [chance.random() < SLIP for _ in LETTERS]
    lines, answer = running_sums(digits, [False] * len(LETTERS))
    written, end = running_sums(digits, slips)
    return {
        "question": "sums " + " ".join(f"{x}{d}" for x, d in zip(LETTERS, digits, strict=True)),
        "steps": lines,
        "answer": answer,
        "hasty": "\n".join([*written, answer_line(end)]),
        "metadata": {"digits": digits, "slips": slips},
    }


def judge_sums(prompt: str, response: str, answer: str) -> dict[str, Any]:
    """1 where every running sum is right and the answer is the last of them, else 0."""
    lines, last = running_sums([int(d) for d in re.findall(r"[a-l](\d)", prompt)], [False] * len(LETTERS))
    given, written = find_answer(response), response.splitlines()
    good = sum(a == b for a, b in zip(written, lines, strict=False))
    right = good == len(lines) and given == last
    return {
        "score": float(right),
        "correct": right,
        "formatted": given is not None,
        "reason": f"{good} of {len(lines)} sums, answer {given!r}",
    }


SPARSE_HARD = Drawn(
    name="sparse-hard",
    summary="twelve running sums, hardly ever all right: sums a3 b8 c4 d1 e9 f2 g7 h5 i6 j3 k8 l2",
    draw=_draw,
    judge=judge_sums,
    max_tokens=80,
    # All solutions are hasty ones. A step is then right with probability 0.4, twelve in a row almost never, and the
    # likeliest response is wrong; from three quarters of the right lines the last quarter comes out well now and then
    warm_start={"steps": 600, "terse": 1.0},
)
"""The embedded model hardly ever answers a question of it, and often goes on well from most of a worked solution."""
