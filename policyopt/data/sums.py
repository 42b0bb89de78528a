"""Sums with their terms in another order. Nothing here imports torch."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

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
