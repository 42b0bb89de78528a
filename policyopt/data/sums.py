"""Sums of digits: drawn, worked out and judged, or with their terms in another order. Nothing here imports torch."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from policyopt.judging.answers import find_answer

Order = Callable[[list[str]], list[str]]
"""Signed terms in another order, an added one first; as they are where there is none."""

_SUM = re.compile(r"(?<![\w.*/^()+-])\d+(?:\s*[+-]\s*\d+)+(?![\w.*/^(])")
_TERM = re.compile(r"[+-]?\d+")


def reordered(question: str, order: Order) -> str | None:
    """A question with the terms of its first sum of whole numbers in another order; ``None`` where there is no sum, or
    no other order."""
    found = _SUM.search(question)
    terms = _TERM.findall("+" + re.sub(r"\s", "", found[0])) if found else []
    if found is None or order(terms) == terms:
        return None
    return question[: found.start()] + "".join(order(terms))[1:] + question[found.end() :]


def added_first(terms: list[str]) -> list[str]:
    """Add first and subtract after: running totals stay above 0 as long as they can."""
    return sorted(terms, key=lambda term: term[0] == "-")


def turned(terms: list[str]) -> list[str]:
    """Begin with the next term that is added; those before it come last."""
    first = next((i for i, term in enumerate(terms) if i and term[0] == "+"), 0)
    return terms[first:] + terms[:first]


def shuffled(seed: str) -> Order:
    """Any other order, by chance."""

    def order(terms: list[str]) -> list[str]:
        chance = random.Random(seed)
        tried = (chance.sample(terms, len(terms)) for _ in range(16))
        return next((found for found in tried if found != terms and found[0][0] == "+"), terms)

    return order


def drawn_sum(chance: random.Random, terms: int = 4, most: int = 9) -> dict[str, Any]:
    """An entry of :class:`~policyopt.data.drawn.Drawn`: a sum of numbers from 1 to ``most``, worked out by its running total."""
    first, *rest = (chance.randint(1, most) for _ in range(terms))
    signed = [chance.choice("+-") + str(x) for x in rest]
    question = f"{first}{''.join(signed)}=?"
    steps, answer = worked_out(question)
    return {"question": question, "steps": steps, "answer": answer, "metadata": {}}


def worked_out(question: str, slip: tuple[int, int] | None = None) -> tuple[list[str], str]:
    """The running total of a sum, a line a step, and what it comes to. With a ``slip`` (i, d) step i is off by d, and the next one goes on from there."""
    first, *signed = _TERM.findall(question.partition("=")[0])
    at, off = slip or (0, 0)
    total, steps = int(first), []
    for i, term in enumerate(signed):
        before, total = total, total + int(term) + (off if i == at else 0)
        steps.append(f"{before}{term}={total}")
    return steps, str(total)


def judge_answer(prompt: str, response: str, answer: str) -> dict[str, Any]:
    """1 for the answer, whatever stands before it, else 0."""
    given = find_answer(response)
    right = given == answer
    return {
        "score": float(right),
        "correct": right,
        "formatted": given is not None,
        "reason": f"{given!r} against {answer!r}",
    }
