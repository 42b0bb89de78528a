"""Worked solutions in the place of responses."""

from __future__ import annotations

import random
from typing import ClassVar

from policyopt.part import Fraction, part
from policyopt.sources.draw.group import Group
from policyopt.sources.program import Context, Question, Response


@part
class Demonstrated(Group):
    """A share of the prompts is answered by one worked solution each, the others by the policy.

    Whose turn it is follows from the prompt's key. A solution is cut at the budget, and counted. Its log-probabilities are those of
    the policy as it is, which did not write it.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})

    uses: ClassVar[frozenset[str]] = frozenset({"solutions"})

    share: Fraction = 1.0
    """Probability that a prompt is answered by its solution."""

    async def draw(self, question: Question, context: Context) -> list[Response]:
        if not question.solution or random.Random(repr(("demonstrated", question.key))).random() >= self.share:
            return await super().draw(question, context)
        if len(question.solution) > question.budget:
            context.count(solutions_cut=1)
        solution = question.solution[: question.budget]
        return [await context.sampler.logprobs(question.tokens, solution, temperature=self.temperature)]
