"""The testbed ``modes``: a thought that may be left out, which costs nothing on easy questions and the answer on hard ones. Nothing here imports torch."""

from __future__ import annotations

import random
import re
from typing import Any

from policyopt.data.builtin import Entry
from policyopt.data.drawn import Drawn
from policyopt.data.sums import drawn_sum
from policyopt.items import judge
from policyopt.judging.answers import answer_line, find_answer

LEVELS = {"easy": (1, 999), "hard": (4, 9)}
"""How many terms a sum of each level has, and the largest of them. A single number is its own sum: a thought repeats it, and can go. Of four
a thought has the steps without which the sum mostly comes out wrong."""
SKIP = "<think></think>"
SHORT = 0.15
"""Share of the easy questions whose worked solution has an empty thought too."""

_EMPTY = re.compile(r"\s*<think>\s*</think>")
_FORM = re.compile(r"\s*<think>.*?</think>\s*####[^\n]*\s*", re.DOTALL)
_TERMS = re.compile(r"\d+")


def level(prompt: str) -> str:
    """Which level a question is of."""
    return "hard" if len(_TERMS.findall(prompt)) > LEVELS["easy"][0] else "easy"


def _draw(chance: random.Random) -> Entry:
    """A sum whose working stands in a thought; somebody in a hurry leaves the thought empty."""
    name = chance.choice(list(LEVELS))
    entry = drawn_sum(chance, *LEVELS[name])
    thought = [str(step) for step in entry["steps"]] or [entry["answer"]]
    if name == "easy" and chance.random() < SHORT:
        thought = []
    return {
        **entry,
        "steps": ("<think>" + "\n".join(thought) + "</think>").splitlines(),
        "hasty": f"{SKIP}\n{answer_line(entry['answer'])}",
        "source": name,
        "metadata": {"level": name},
    }


@judge(columns=("component[needed]",))
def judge_modes(prompt: str, response: str, answer: str) -> dict[str, Any]:
    """1 for the answer, in whichever mode. Parts: whether the question needs a thought (``needed``), and whether the thought is
    empty (``skips_easy`` and ``skips_hard``, each on its own questions alone)."""
    given, hard = find_answer(response), level(prompt) == "hard"
    right, skips = given == answer, float(_EMPTY.match(response) is not None)
    return {
        "score": float(right),
        "correct": right,
        "formatted": _FORM.fullmatch(response) is not None,
        "reason": f"{given!r} against {answer!r}",
        "parts": {
            "needed": float(hard),
            "skips_easy": None if hard else skips,
            "skips_hard": skips if hard else None,
        },
    }


MODES = Drawn(
    name="modes",
    summary="sums of four numbers, or one number alone, worked out in a thought that may be left empty: 3+1-9+5=?",
    draw=_draw,
    judge=judge_modes,
    max_tokens=80,
    warm_start={"terse": 0.15, "steps": 2000},
)
"""What the warm start sees is seldom hasty, and has a thought mostly; on hard questions a little more often."""
