"""Groups that go on from the beginning of a good response."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from policyopt.part import Finite, Fraction, NonNegative, Whole, part
from policyopt.sources.draw import Group
from policyopt.sources.draw.begun import fitting, go_on
from policyopt.sources.program import Context, Question, Response


@part
class ResumedFromBest(Group):
    r"""A group where the rewards differ, and further groups that go on from beginnings of its best response.

    .. math:: P(k) \propto \alpha^{k-1},\quad k = 1..L,\qquad \lceil\eta L\rceil \text{ beginnings of } k \text{ lines, drawn with replacement}

    A prompt whose rewards have a (population) standard deviation below ``std_min`` is left out. Where the best reward is
    at least ``reward_min``, its response is divided into its L lines; from each beginning that is drawn comes a group of
    its own (``origin`` 1 and up), judged with the beginning and trained on what follows it. Source: ReST-GRPO,
    arXiv:2508.19576, and the authors' code (THUDM/ReST-RL). Our reading: the responses that a prompt is judged by are its
    own group, not drawn beforehand; of several best ones the first counts; the budget is for beginning and rest together.
    """

    std_min: NonNegative = 0.05
    """Least standard deviation of the rewards."""
    ddof: Whole = 0
    """What is taken off the number of rewards in their variance."""
    reward_min: Finite = 0.9
    """Least reward of a response whose beginnings are gone on from."""
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.95
    """alpha: how much less often each further line is in a beginning."""
    ratio: Fraction = 0.5
    """eta: beginnings over lines; 0 for none."""

    uses: ClassVar[frozenset[str]] = frozenset({"judge"})

    def keeps(self, rewards: Sequence[float]) -> bool:
        """Whether a prompt with these rewards is trained on."""
        count = len(rewards) - self.ddof
        spread = math.sqrt(statistics.pvariance(rewards) * len(rewards) / count) if count > 0 else 0.0
        return spread >= self.std_min

    def resumes(self, rewards: Sequence[float]) -> bool:
        """Whether there are groups from its beginnings too."""
        return self.keeps(rewards) and max(rewards) >= self.reward_min

    def weights(self, lines: int) -> list[float]:
        """P(k), for a response of so many lines."""
        total = sum(self.alpha**k for k in range(lines))
        return [self.alpha**k / total for k in range(lines)]

    def count(self, lines: int) -> int:
        """How many beginnings are drawn."""
        return math.ceil(self.ratio * lines)

    async def draw(self, question: Question, context: Context) -> list[Response]:
        group = await super().draw(question, context)
        verdicts = await context.judge(group)
        rewards = [v.score for v in verdicts if v.rewarded]
        if not rewards:  # nothing to go by
            return group
        if not self.keeps(rewards):
            for response in group:
                response.use = "pool"
            context.count(left_out=1.0)
            return group
        if not self.resumes(rewards):
            return group
        best = next(r for r, v in zip(group, verdicts, strict=True) if v.score == max(rewards))
        drawn = await asyncio.gather(
            *(
                go_on(question, context, start, n=self.size, temperature=self.temperature, key=(*question.key, i))
                for i, start in enumerate(self.starts(question, context, best), 1)
            )
        )
        for origin, responses in enumerate(drawn, 1):
            for response in responses:
                response.origin = origin
        return [*group, *(response for responses in drawn for response in responses)]

    def starts(self, question: Question, context: Context, best: Response) -> list[Sequence[int]]:
        """The beginnings that are gone on from."""
        text = best.tokens[:-1] if best.finished else best.tokens
        ends = context.lines(text)
        chosen = random.Random(repr(("start", question.key))).choices(
            ends or [0], self.weights(len(ends)) or [1.0], k=self.count(len(ends))
        )
        return [fitting(question, context, text[:end]) for end in chosen]
