"""Hints, for prompts that the policy fails at alone: beginnings of the worked solution, the weakest first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import ClassVar

from policyopt.parts.base import Fraction, Whole, part
from policyopt.rollout.base import Prompt, Response, Sampler
from policyopt.rollout.begun import fitting, go_on
from policyopt.rollout.group import Group


def hint_length(solution: int, share: float) -> int:
    """How many of so many tokens a hint shows; a half is rounded to the even number."""
    return round(share * solution)


def weakest(success: Iterable[bool]) -> int | None:
    """The first level that succeeded, ``None`` where none did."""
    return next((level for level, good in enumerate(success) if good), None)


@part
class Hinted(Group):
    """A group, and a ladder of hints for the programs that give them to prompts without a right answer.

    A hint is the beginning of the response: it is read, judged with what follows, and never trained on. A prompt
    without a worked solution gets none.
    """

    solutions: ClassVar[bool] = True

    hints: tuple[Fraction, ...] = (0.25, 0.5, 0.75)
    """Shares of the worked solution that the hints show, the weakest first."""

    def __post_init__(self) -> None:
        if not self.hints or min(self.hints) == 0 or list(self.hints) != sorted(set(self.hints)):
            raise ValueError(f"hints are shares of a solution above 0, the weakest first, not {self.hints}")

    def ladder(self, prompt: Prompt) -> list[tuple[int, ...]]:
        """The hints for a prompt. They leave one token of the budget, and the end token, to the policy."""
        text = prompt.solution[:-1]
        if not text:
            return []
        return [tuple(fitting(prompt, text[: hint_length(len(text), share)])) for share in self.hints]

    async def solved(self, prompt: Prompt, responses: Sequence[Response]) -> bool:
        """Whether one of the responses is right."""
        return any(verdict.correct for verdict in await prompt.score(responses))

    async def hinted(
        self, prompt: Prompt, sampler: Sampler, hint: tuple[int, ...], *, n: int, key: tuple[int, ...]
    ) -> list[Response]:
        """Responses that begin with a hint."""
        return await go_on(prompt, sampler, hint, n=n, temperature=self.temperature, key=key)


@part
class Scaffold(Hinted):
    """A group; where all of it is wrong, its first response makes way for the success that had the weakest hint.

    One response is drawn from each hint, all at once. Where none is right the group stays as it is. Source: Scaf-GRPO,
    arXiv:2510.19807, and the authors' code (dvlab-research/Scaf-GRPO).
    """

    warmup: Whole = 0
    """Steps without hints."""

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        group = await super().draw(prompt, sampler)
        _, step, _ = prompt.key
        if step < self.warmup or await self.solved(prompt, group):
            return group
        drawn = await asyncio.gather(
            *(
                self.hinted(prompt, sampler, hint, n=1, key=(*prompt.key, level))
                for level, hint in enumerate(self.ladder(prompt), 1)
            )
        )
        ladder = [response for [response] in drawn]
        level = weakest(verdict.correct for verdict in await prompt.score(ladder))
        return group if level is None else [ladder[level], *group[1:]]


@part
class Redraw(Hinted):
    """A group; where all of it is wrong, another one from the weakest hint, and so on up the ladder.

    All responses of the group that is returned had the same hint: the first with which one was right, or the strongest.
    Sources: GHPO, arXiv:2507.10628, and the authors' code (hkgc-1/GHPO); Kwai Keye-VL 1.5, arXiv:2509.01563.
    """

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        group = await super().draw(prompt, sampler)
        if await self.solved(prompt, group):
            return group
        for level, hint in enumerate(self.ladder(prompt), 1):
            group = await self.hinted(prompt, sampler, hint, n=self.size, key=(*prompt.key, level))
            if await self.solved(prompt, group):
                break
        return group


@part
class Guided(Hinted):
    r"""A group; where all of it is wrong, as many responses from a hint beside it, as if the policy had written them.

    With a hint g the policy begins by copying it, with certainty, so the probability of a token in the context with the
    hint is 1 on the hint and :math:`\pi_{old}(y_t \mid q, g, y_{<t})` after it. That is what the ratio divides by; the
    policy that is trained reads the plain prompt. Hints go round among the responses, whose ``source`` is 1. Source:
    Guide, arXiv:2506.13923.
    """

    async def draw(self, prompt: Prompt, sampler: Sampler) -> list[Response]:
        group = await super().draw(prompt, sampler)
        if await self.solved(prompt, group):
            return group
        ladder = self.ladder(prompt)
        if not ladder:
            return group
        drawn = await asyncio.gather(
            *(
                self.hinted(prompt, sampler, ladder[i % len(ladder)], n=1, key=(*prompt.key, i))
                for i in range(self.size)
            )
        )
        guided = [response for [response] in drawn]
        for response in guided:
            response.own, response.source = [], 1
        return [*group, *guided]
