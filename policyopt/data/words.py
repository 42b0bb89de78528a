"""What rollout programs ask the policy in the place of a question, in words. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

SIMPLIFY = "Rewrite this problem so that it is easier to understand."
DIVERSIFY = "Rewrite this problem in other words."
AGAIN = "Answer again, without the errors."
EXPLAIN = "{question}\nThe answer is {answer}. Explain step by step how to get there."
SCORE = "\nscore each: "
HINT = "{question}\n\nHint: {hint}"

T = TypeVar("T")


def rewriting(question: str, answer: str, wish: str) -> str:
    """The request to write a question anew; its answer is named for it to be kept."""
    return f"{wish} Its answer must stay {answer} and must not be told. Put it between ``` and ```.\n\n{question}"


def explanation(question: str, answer: str, request: str = EXPLAIN) -> str:
    """The request to explain a known answer; ``{question}`` and ``{answer}`` stand for those."""
    return request.replace("{question}", question).replace("{answer}", answer)


def hinted(question: str, hint: str, request: str = HINT) -> str:
    """A question with a hint beside it; ``{question}`` and ``{hint}`` stand for those."""
    return request.replace("{question}", question).replace("{hint}", hint)


def verdict_in_words(right: bool, answer: str | None = None) -> str:
    """A critique that says whether a response is right and, if it may, what the answer is."""
    said = "This is right." if right else "This is wrong."
    return said if answer is None else f"{said} The answer is {answer}."


def refinement(question: str, response: str, critique: str, request: str = AGAIN) -> str:
    """The request to answer anew after a critique of a response."""
    return f"{question}\n\n{response}\n\n{critique} {request}"


def judging(candidates: Sequence[T], encode: Callable[[str], T], request: str = SCORE) -> list[T]:
    """What follows a question for which candidates are to be scored, in pieces: each with its number, and the
    request."""
    numbered = [x for i, text in enumerate(candidates, 1) for x in (encode(f"\n({i}) "), text)]
    return [*numbered, encode(request)]
