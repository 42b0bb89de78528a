"""Responses that begin with text of somebody else: the policy reads it, goes on from it, and learns from what it wrote
itself.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from typing import ClassVar

from policyopt.part import Fraction, part
from policyopt.sources.draw.group import Group
from policyopt.sources.program import Context, Question, Response


def fitting(question: Question, context: Context, start: Sequence[int]) -> Sequence[int]:
    """What of a beginning leaves one token of the budget to the policy. What had to be cut is counted."""
    if len(start) >= question.budget:
        context.count(beginnings_cut=1)
    return start[: question.budget - 1]


def begin(response: Response, start: Sequence[int]) -> Response:
    """A response with ``start`` before it, as tokens that the policy did not write; it is changed in place."""
    n = len(start)
    if n:
        response.own = [False] * n + (response.own or [True] * len(response.tokens))
    response.tokens = [*start, *response.tokens]
    response.logp = [0.0] * n + response.logp
    response.entropy = [0.0] * n + response.entropy
    response.support = [()] * n + response.support
    response.versions = [response.version] * n + response.versions
    return response


async def go_on(
    question: Question, context: Context, start: Sequence[int], *, n: int, temperature: float, key: tuple[int, ...]
) -> list[Response]:
    """``n`` responses that begin with ``start``, which counts in the budget."""
    drawn = await context.sampler.generate(
        (*question.tokens, *start), n=n, max_tokens=question.budget - len(start), temperature=temperature, key=key
    )
    return [begin(response, start) for response in drawn]


@part
class DatasetReset(Group):
    r"""Each response starts, with a probability, in the middle of the worked solution.

    .. math:: h = 1 + \lfloor u_2\,(|y| - 1) \rfloor \text{ if } u_1 < share \text{ and } |y| \ge 2, \text{ else } 0

    The first h of the solution's tokens stand before what the policy writes; it writes one token at least. Source:
    DR-PO, arXiv:2404.08495, and the authors' code (Cornell-RL/drpo).
    """

    uses: ClassVar[frozenset[str]] = frozenset({"solutions"})

    share: Fraction = 1.0
    """Probability that a response starts in the solution."""

    def length(self, solution: int, mix: float, place: float) -> int:
        """h, for a solution of so many tokens (its end token included) and u_1, u_2 in [0, 1)."""
        if solution < 2 or mix >= self.share:
            return 0
        return 1 + math.floor(place * (solution - 1))

    async def draw(self, question: Question, context: Context) -> list[Response]:
        chance = random.Random(repr(("reset", question.key)))
        starts = []
        for _ in range(self.size):
            h = self.length(len(question.solution), chance.random(), chance.random())
            starts.append(fitting(question, context, question.solution[:h]))
        drawn = await asyncio.gather(
            *(
                go_on(question, context, start, n=1, temperature=self.temperature, key=(*question.key, i))
                for i, start in enumerate(starts)
            )
        )
        return [response for [response] in drawn]
