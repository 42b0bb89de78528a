"""Independent responses to one prompt."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from policyopt.part import part
from policyopt.sources.program import Prompt, Response, Rollout, Sampler


@part
class Group(Rollout):
    """``size`` independent responses to each prompt, drawn at ``temperature``."""

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        return await sampler.generate(
            prompt.tokens, n=self.size, max_tokens=prompt.budget, temperature=self.temperature, key=prompt.key
        )


@part
class GroupWithGreedy(Group):
    """A group, and one greedy response whose reward is its baseline (ReMax, arXiv:2310.10505)."""

    provides: ClassVar[frozenset[str]] = frozenset({"baseline_reward"})

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        sampled, greedy = await asyncio.gather(
            super().draw(prompt, sampler),
            sampler.generate(prompt.tokens, n=1, max_tokens=prompt.budget, temperature=0.0, key=prompt.key),
        )
        greedy[0].role = "baseline"
        return [*sampled, *greedy]
