"""Questions in other words, with the same answer."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from policyopt.parts.base import Count, Part, part
from policyopt.rollout.base import Prompt, Sampler
from policyopt.rollout.request import reply
from policyopt.tasks.sums import added_first, reordered, shuffled
from policyopt.tasks.words import DIVERSIFY, SIMPLIFY, rewriting

Kind = Literal["simplify", "diversify"]
"""What a rewrite is for: to be understood better, or to say the same in another way."""

_FENCE = re.compile(r"```(?:\w*\n)?(.*?)(?:```|\Z)", re.DOTALL)


class Rewriter(Part):
    """Writes the question of a prompt anew; ``None`` where nothing of use came out."""

    async def __call__(self, prompt: Prompt, sampler: Sampler, kind: Kind) -> str | None:
        raise NotImplementedError


@part
class PolicyRewriter(Rewriter):
    """The policy writes the question anew, in the first fence of what it answers to a request, or in all of it.

    A rewrite of another length than was asked for is of no use, nor is one that gives away the answer. Source: CLPO,
    arXiv:2509.25004, and the authors' code (csuking/CLPO): temperature 0.7, 400 tokens, 11 to 1999 characters. Our
    reading: 4 characters are enough, for short questions; the request, which has to name the answer for it to be kept,
    is ours, and that it must not be given away is looked after (there it is only asked for).
    """

    simplify: str = SIMPLIFY
    """What is asked about hard questions."""
    diversify: str = DIVERSIFY
    """What is asked about middling ones."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.7
    """Sampling temperature of the rewrite."""
    tokens: Count = 400
    """Longest rewrite in tokens, all that is written around it included."""
    shortest: Count = 4
    """Shortest rewrite in characters."""
    longest: Count = 2000
    """Longest rewrite in characters."""
    hide: bool = True
    """Whether a rewrite in which the answer stands, unless the question had it, is of no use."""

    async def __call__(self, prompt: Prompt, sampler: Sampler, kind: Kind) -> str | None:
        request = self.request(prompt, kind)
        written = await reply(
            prompt, sampler, request, tokens=self.tokens, temperature=self.temperature, key=(*prompt.key, -1)
        )
        text = fenced(written or "")
        if not self.shortest <= len(text) <= self.longest:
            return None
        told = self.hide and stands(prompt.answer, text) and not stands(prompt.answer, prompt.question)
        prompt.count(rewrites_telling=told)
        return None if told else text

    def request(self, prompt: Prompt, kind: Kind) -> str:
        """What the policy is asked."""
        return rewriting(prompt.question, prompt.answer, self.simplify if kind == "simplify" else self.diversify)


@part
class ReorderedSum(Rewriter):
    """The first sum of whole numbers in the question with its terms in another order; the answer cannot change.

    Simpler is to add first and subtract after: running totals stay above 0 as long as they can. For variety any other
    order will do, with an added term first; it follows from the prompt's key. Nothing of use where there is no sum, or
    no other order.
    """

    async def __call__(self, prompt: Prompt, sampler: Sampler, kind: Kind) -> str | None:
        order = added_first if kind == "simplify" else shuffled(repr(("reorder", prompt.key)))
        return reordered(prompt.question, order)


def fenced(text: str) -> str:
    """What stands in the first fence of a text, or all of it, without space around it."""
    found = _FENCE.search(text)
    return (found[1] if found else text).strip()


def stands(word: str, text: str) -> bool:
    """Whether a text holds a word or number, not as a part of another one."""
    return bool(word) and re.search(rf"(?<![\w.]){re.escape(word)}(?!\w|\.\d)", text) is not None
