"""Responses that may have only as many tokens as their prompt is allowed now."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from policyopt.part import Part, part
from policyopt.sources.draw.group import Group
from policyopt.sources.program import Context, Question, Response


class PromptBudget(Part):
    """How many tokens a response to a prompt may have. It stands inside :class:`GroupWithinBudget`."""

    def __call__(self, history: Sequence[float], most: int) -> float:
        """The budget, from what the recipe's memory holds of the prompt (NaN where it is new) and from that of the run."""
        raise NotImplementedError


@part
class RememberedBudget(PromptBudget):
    """The first number of the memory; that of the run where it is 0, or the prompt is new. Source: PALU, arXiv:2510.10168."""

    def __call__(self, history: Sequence[float], most: int) -> float:
        return history[0] if history[0] > 0 else most


@part
class GroupWithinBudget(Group):
    """A group whose responses are cut at the budget of their prompt, which the memory tells, and which is never above that of the run.

    The log has the mean budget (``rollout/budget``). Sources: PALU, arXiv:2510.10168; DLER, arXiv:2510.15110.
    """

    budget: PromptBudget = RememberedBudget()
    """What a prompt is allowed."""

    needs: ClassVar[frozenset[str]] = frozenset({"history"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        allowed = max(1, min(question.budget, int(self.budget(question.history, question.budget))))
        responses = await super().draw(dataclasses.replace(question, budget=allowed), context)
        for response in responses:
            response.budget = allowed
        context.count(budget=allowed)
        return responses
