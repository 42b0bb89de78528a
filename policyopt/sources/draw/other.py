"""Groups that another model than the policy writes, or a part of."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from policyopt.part import RoleName, Whole, part
from policyopt.sources.draw.group import Group
from policyopt.sources.program import Context, Question, Response


@part
class GroupFrom(Group):
    """Responses of which the model in a role writes ``size - own``; the first ``own`` of them the policy writes.

    Where both write, the other model's have ``origin`` 1. ``old_logp`` is that of whoever wrote a row. Sources: RSO,
    arXiv:2309.06657 (all by the reference); XPO, arXiv:2405.21046 (one each).
    """

    role: RoleName = "reference"
    """Who writes beside the policy: "reference", "teacher", or a name given by ``--role``."""
    own: Whole = 0
    """How many the policy writes."""

    asks: ClassVar[frozenset[str]] = frozenset({"role sampling"})

    def __post_init__(self) -> None:
        if self.own >= self.size:
            raise ValueError(
                f"own is {self.own} of {self.size} responses, which leaves none to the {self.role}: raise size, or take Group()"
            )

    @property
    def uses(self) -> frozenset[str]:
        """The other model."""
        return frozenset({f"sampler_of[{self.role}]"})

    async def draw(self, question: Question, context: Context) -> list[Response]:
        theirs, mine = await asyncio.gather(
            self.others(question, context, self.size - self.own), self.mine(question, context)
        )
        for response in theirs:
            response.origin = int(self.own > 0)
        return [*mine, *theirs]

    async def others(self, question: Question, context: Context, n: int) -> list[Response]:
        """``n`` responses of the other model; their random numbers are not those of the policy's."""
        return await context.sampler_of(self.role).generate(
            question.tokens, n=n, max_tokens=question.budget, temperature=self.temperature,
            key=(*question.key, -1), truncation=self.truncation,
        )  # fmt: skip

    async def mine(self, question: Question, context: Context) -> list[Response]:
        """What the policy writes."""
        if not self.own:
            return []
        return await context.sampler.generate(
            question.tokens, n=self.own, max_tokens=question.budget, temperature=self.temperature, key=question.key
        )
