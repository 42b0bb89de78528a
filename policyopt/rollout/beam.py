"""Step by step, the beginnings that the critic thinks most of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from policyopt.parts.base import Count, part
from policyopt.rollout.base import Prompt, Response, Rollout, Sampler
from policyopt.rollout.tree import extended


async def ranked(prompt: Prompt, responses: Sequence[Response]) -> list[Response]:
    """The responses in the order of their values, the best first; those of the same value as they came."""
    values = await prompt.value(responses)
    order = sorted(range(len(responses)), key=lambda i: -values[i])
    return [responses[i] for i in order]


@part
class Beam(Rollout):
    """Step-level beam search: from each beam several next lines, of all lines those that lead to the best values.

    A beam that has ended waits for the others; at the end all that have ended are ranked by the value before their end
    token, and the ``size`` best are returned. Beams that are still open when the budget or ``steps`` is spent come after
    them. Source: OREO, arXiv:2412.16145, and the authors' code (jwhj/OREO): width 3, 3 lines from each, 20 steps, at
    temperature 1. Our reading: a line is valued with its line break.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"stop sequences"})

    size: Count = 1
    """Responses that are returned, fewer where the search ends with fewer."""
    width: Count = 3
    """Beams that are kept after each step."""
    samples: Count = 3
    """Next lines that are drawn from each."""
    steps: Count = 20
    """Most lines of a response."""

    needs: ClassVar[frozenset[str]] = frozenset({"value"})

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        beams = [Response([], [], [], False, temperature=self.temperature)]
        ended: list[Response] = []
        for step in range(self.steps):
            grown = await asyncio.gather(
                *(self._next(beam, prompt, sampler, (step, i)) for i, beam in enumerate(beams))
            )
            lines = [line for several in grown for line in several]
            ended += [line for line in lines if line.finished]
            beams = (await ranked(prompt, [line for line in lines if not line.finished]))[: self.width]
            if all(len(beam.tokens) >= prompt.budget for beam in beams):
                break
        return [*await ranked(prompt, ended), *beams][: self.size]

    async def _next(self, beam: Response, prompt: Prompt, sampler: Sampler, place: tuple[int, int]) -> list[Response]:
        """A beam with each of several next lines; itself where it has spent the budget."""
        left = prompt.budget - len(beam.tokens)
        if left < 1:
            return [beam]
        drawn = await sampler.generate(
            (*prompt.tokens, *beam.tokens), n=self.samples, max_tokens=left, temperature=self.temperature,
            key=(*prompt.key, *place), stop=prompt.line_ends(), keep=True,
        )  # fmt: skip
        return [extended(beam, len(beam.tokens), line) for line in drawn]
