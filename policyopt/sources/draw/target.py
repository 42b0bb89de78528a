"""Text that the policy is to find likely, in rows beside the responses that it is judged by."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from policyopt.part import part
from policyopt.sources.draw.group import Group
from policyopt.sources.program import Context, Question, Response


async def as_target(question: Question, context: Context, written: tuple[int, ...], temperature: float) -> Response:
    """A text as a row behind the plain prompt (``origin`` 1), with what the policy thinks of it there."""
    response = await context.sampler.logprobs(question.tokens, written, temperature=temperature)
    response.origin = 1
    return response


async def references(question: Question, context: Context, temperature: float) -> list[Response]:
    """The worked solution as a target, where the prompt has one. It is cut at the budget, and counted."""
    if not question.solution:
        return []
    if len(question.solution) > question.budget:
        context.count(solutions_cut=1)
    return [await as_target(question, context, question.solution[: question.budget], temperature)]


@part
class WithReference(Group):
    """A group, and the worked solution (``origin`` 1), which is judged as the responses are.

    Sources: GRAO, arXiv:2508.07750; CHORD, arXiv:2508.11408.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})

    uses: ClassVar[frozenset[str]] = frozenset({"solutions"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group, targets = await asyncio.gather(
            super().draw(question, context), references(question, context, self.temperature)
        )
        return [*group, *targets]
