"""Responses that the policy and a guide write together: one begins, the other finishes."""

from __future__ import annotations

import asyncio
import random
from typing import ClassVar, Literal

from policyopt.errors import UserError
from policyopt.parts.base import Fraction, NonNegative, part
from policyopt.rollout.base import Prompt, Response, Sampler
from policyopt.rollout.begun import DatasetReset, go_on
from policyopt.rollout.group import Group
from policyopt.rollout.target import references

Setting = Literal["ppo++", "aggrevated"]


def finished_by(start: Response, rest: Response, h: int) -> Response:
    """The first h tokens of the policy's response, and a guide's continuation that the policy has scored."""
    return Response(
        start.tokens[:h] + rest.tokens,
        start.logp[:h] + rest.logp,
        start.entropy[:h] + rest.entropy,
        rest.finished,
        versions=start.versions[:h] + rest.versions,
        guided=[False] * h + [True] * len(rest.tokens),
        temperature=rest.temperature,
    )


@part
class WithGuide(Group):
    r"""Each response is begun by the policy and finished by a guide, or the other way round.

    .. math:: h = 1 + \lfloor u_2\,(n - 1) \rfloor \text{ if } u_1 < share \text{ and } n \ge 2, \text{ else } 0

    Who begins writes a whole response of n tokens, of which h stay; the other goes on from there. In the setting
    ``ppo++`` the guide begins, and its tokens are context. In ``aggrevated`` the policy begins, and the guide's tokens
    are marked (``Batch.guided``). ``lols`` is ppo++ in a share ``tau`` of the steps, drawn step by step; ``d2lols`` is
    aggrevated before step ``tau``, then ppo++. The guide is the model of the role teacher. Source: RLGF,
    arXiv:2306.11816, and the authors' code (Cornell-RL/tril).
    """

    asks: ClassVar[frozenset[str]] = frozenset({"scoring"})

    algorithm: Literal["ppo++", "aggrevated", "lols", "d2lols"] = "ppo++"
    """Who begins."""
    share: Fraction = 0.6
    """Probability that a response keeps a beginning; without one, who finishes writes it all."""
    tau: NonNegative = 0.8
    """Of lols the share of steps that are ppo++, of d2lols the step of the switch."""
    targets: bool = True
    """Add the worked solution as a target of likelihood (``source`` 1)."""

    roles: ClassVar[frozenset[str]] = frozenset({"teacher"})

    @property
    def solutions(self) -> bool:  # type: ignore[override]
        """It reads worked solutions where they are targets."""
        return self.targets

    def setting(self, step: int, u: float) -> Setting:
        """Who begins at a step, counted from 0, with u in [0, 1)."""
        if self.algorithm == "lols":
            return "ppo++" if u < self.tau else "aggrevated"
        if self.algorithm == "d2lols":
            return "aggrevated" if step < self.tau else "ppo++"
        return self.algorithm

    def length(self, response: int, mix: float, place: float) -> int:
        """h, of a response of so many tokens, with u_1 and u_2 in [0, 1)."""
        return DatasetReset(share=self.share).length(response, mix, place)

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        if prompt.guide is None:
            raise UserError(
                f"{type(self).__name__} draws from a guide, and there is none: name its model with --teacher"
            )
        seed, step, *_ = prompt.key
        setting = self.setting(step, random.Random(repr(("setting", seed, step))).random())
        write = self.begun_by_guide if setting == "ppo++" else self.begun_by_policy
        chance = random.Random(repr(("reset", prompt.key)))
        drawn = [
            write(prompt, sampler, prompt.guide, (*prompt.key, i), chance.random(), chance.random())
            for i in range(self.size)
        ]
        responses = await asyncio.gather(*drawn)
        return [*responses, *(await references(prompt, sampler, self.temperature) if self.targets else ())]

    async def begun_by_guide(
        self, prompt: Prompt, sampler: Sampler, guide: Sampler, key: tuple[int, ...], mix: float, place: float
    ) -> Response:
        """A response of the setting ppo++."""
        start: list[int] = []
        if mix < self.share:
            [whole] = await guide.generate(
                prompt.tokens, max_tokens=prompt.budget, temperature=self.temperature, key=(*key, -1)
            )
            start = whole.tokens[: self.length(len(whole.tokens), mix, place)]
        [response] = await go_on(prompt, sampler, start, n=1, temperature=self.temperature, key=key)
        return response

    async def begun_by_policy(
        self, prompt: Prompt, sampler: Sampler, guide: Sampler, key: tuple[int, ...], mix: float, place: float
    ) -> Response:
        """A response of the setting aggrevated."""
        start = Response([], [], [], False)
        if mix < self.share:
            [start] = await sampler.generate(
                prompt.tokens, max_tokens=prompt.budget, temperature=self.temperature, key=key
            )
        h = self.length(len(start.tokens), mix, place)
        context = (*prompt.tokens, *start.tokens[:h])
        [rest] = await guide.generate(
            context, max_tokens=prompt.budget - h, temperature=self.temperature, key=(*key, -1)
        )
        scored = await sampler.score(context, tuple(rest.tokens), temperature=self.temperature)
        return finished_by(start, scored, h)
