"""Worked solutions in the place of responses."""

from __future__ import annotations

import random
from typing import ClassVar

from policyopt.part import Fraction, part
from policyopt.sources.draw.group import Group
from policyopt.sources.program import Prompt, Response, Sampler


@part
class Demonstrated(Group):
    """A share of the prompts is answered by one worked solution each, the others by the policy.

    Whose turn it is follows from the prompt's key. A solution is cut at the budget, and counted. Its log-probabilities are those of
    the policy as it is, which did not write it.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})

    solutions: ClassVar[bool] = True

    share: Fraction = 1.0
    """Probability that a prompt is answered by its solution."""

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        if not prompt.solution or random.Random(repr(("demonstrated", prompt.key))).random() >= self.share:
            return await super().draw(prompt, sampler)
        if len(prompt.solution) > prompt.budget:
            prompt.count(solutions_cut=1)
        solution = prompt.solution[: prompt.budget]
        return [await sampler.score(prompt.tokens, solution, temperature=self.temperature)]
