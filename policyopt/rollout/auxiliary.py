"""A group, and further responses to some prompts at another temperature."""

from __future__ import annotations

import asyncio
from typing import Annotated, ClassVar

from pydantic import Field

from policyopt.parts.base import Count, part
from policyopt.rollout.base import Prompt, Response, Sampler
from policyopt.rollout.group import Group


@part
class GroupWithAuxiliary(Group):
    """A group, and for every ``every``-th prompt as many auxiliary responses at a temperature of their own.

    Auxiliary rows have ``source`` 1. Their log-probabilities are those of the main temperature: the policy that is
    trained is asked for what a hotter or colder copy of it wrote. Source: AEPO, arXiv:2510.08141, and the authors' code
    (597358816/AEPO), where they answer the first quarter of the prompts.
    """

    auxiliary_temperature: Annotated[float, Field(gt=0, le=10)] = 1.2
    """Sampling temperature of the auxiliary responses; a controller may move it."""
    every: Count = 4
    """One prompt in so many has them."""

    needs: ClassVar[frozenset[str]] = frozenset({"rollout_logp"})

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        if prompt.key[-1] % self.every:
            return await super().draw(prompt, sampler)
        main, auxiliary = await asyncio.gather(
            super().draw(prompt, sampler),
            sampler.generate(
                prompt.tokens, n=self.size, max_tokens=prompt.budget, temperature=self.auxiliary_temperature,
                key=(*prompt.key, -1),
            ),
        )  # fmt: skip
        for response in auxiliary:
            response.source, response.temperature = 1, self.temperature
        return [*main, *auxiliary]
