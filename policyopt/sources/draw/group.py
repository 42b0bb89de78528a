"""Independent responses to one prompt."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from policyopt.part import part
from policyopt.sources.program import Context, Question, Response, Rollout


@part
class Group(Rollout):
    """``size`` independent responses to each prompt, drawn at ``temperature``; whole episodes where the task is an environment."""

    plays: ClassVar[bool] = True

    async def draw(self, question: Question, context: Context) -> list[Response]:
        return await context.answers(question, n=self.size, temperature=self.temperature, key=question.key)


@part
class GroupWithGreedy(Group):
    """A group, and one greedy response whose reward is its baseline (ReMax, arXiv:2310.10505)."""

    provides: ClassVar[frozenset[str]] = frozenset({"baseline_reward"})
    plays: ClassVar[bool] = True

    async def draw(self, question: Question, context: Context) -> list[Response]:
        sampled, greedy = await asyncio.gather(
            super().draw(question, context),
            context.answers(question, n=1, temperature=0.0, key=question.key),
        )
        greedy[0].use = "baseline"
        return [*sampled, *greedy]
