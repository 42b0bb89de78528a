"""Responses with the worth of some of their beginnings, estimated by going on from there afresh."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from policyopt.parts.base import Count, part
from policyopt.rollout.base import Prompt, Response, Rollout, Sampler


def cutpoints(logp: Sequence[float], threshold: float, interval: int) -> list[int]:
    """Every ``interval``-th, from the first on, of the places where a token was drawn with a probability below
    ``threshold``."""
    return [t for t, x in enumerate(logp) if math.exp(x) < threshold][::interval]


@part
class Chain(Rollout):
    """A group of responses, each cut into segments at tokens that were uncertain; ``samples`` fresh continuations from
    each cut say what the state there is worth.

    The continuations are not trained on. One that does not end within the budget is worth 0. Source: SPO-chain,
    arXiv:2505.23564, and the authors' code (AIFrameResearch/SPO).
    """

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Probability below which a token is uncertain."""
    interval: Count = 5
    """One cut at every so many uncertain tokens."""
    samples: Count = 9
    """Continuations from each cut."""

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        rows = await sampler.generate(
            prompt.tokens, n=self.size, max_tokens=prompt.budget, temperature=self.temperature, key=(*prompt.key, 0),
            keep=True,
        )  # fmt: skip
        worth = await asyncio.gather(*(self._values(i, r, prompt, sampler) for i, r in enumerate(rows)))
        count = 0
        for response, values in zip(rows, worth, strict=True):
            response.ends = [*self._cuts(response), len(response.tokens)]
            response.values = [*values, math.nan]
            response.nodes = list(range(count + 1, count + 1 + len(response.ends)))
            count += len(response.ends)
        return rows

    def _cuts(self, response: Response) -> list[int]:
        return cutpoints(response.logp, self.threshold, self.interval)

    async def _values(self, number: int, response: Response, prompt: Prompt, sampler: Sampler) -> list[float]:
        """The mean reward of fresh continuations from each cut of a response."""
        drawn = await asyncio.gather(
            *(
                sampler.generate(
                    (*prompt.tokens, *response.tokens[:cut]), n=self.samples, max_tokens=prompt.budget - cut,
                    temperature=self.temperature, key=(*prompt.key, 1, number, cut),
                )
                for cut in self._cuts(response)
            )
        )  # fmt: skip
        whole = [
            [
                Response([*response.tokens[:cut], *r.tokens], [], [], r.finished, temperature=self.temperature)
                for r in rows
            ]
            for cut, rows in zip(self._cuts(response), drawn, strict=True)
        ]
        await prompt.score([r for rows in whole for r in rows])
        return [sum(r.verdict.score for r in rows if r.verdict and r.finished) / len(rows) for rows in whole]
