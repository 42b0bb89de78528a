"""Answers that are forced out of truncated thoughts."""

from __future__ import annotations

import asyncio
import copy
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from policyopt.errors import UserError
from policyopt.judging.answers import MARK
from policyopt.part import Count, Fraction, part
from policyopt.sources.program import Context, Question, Response, Rollout


@dataclass(frozen=True)
class Plan:
    """What forcing an answer takes, in tokens."""

    mark: tuple[int, ...]
    opener: tuple[int, ...]
    answer: int
    """Most tokens of an answer."""
    room: int
    """Most tokens of a thought that is cut."""


@part
class Exits(Rollout):
    """What programs share that cut a thought, close it with ``opener`` and let the policy answer.

    A thought ends where the policy writes ``mark``. Raises :class:`~policyopt.errors.UserError` for a budget that
    leaves no room for a thought and an answer beside the opener.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"stop sequences"})

    mark: str = MARK
    """What the answer begins with where the policy comes to it by itself."""
    opener: str = f"\n{MARK} "
    """What is put behind a thought that was cut."""
    answer_tokens: Count = 16
    """Most tokens of a forced answer; where the budget is short, half of what the opener leaves."""

    def plan(self, question: Question, context: Context) -> Plan:
        """The budget of a prompt, divided."""
        opener = context.encode(self.opener)
        left = question.budget - len(opener)
        if left < 2:
            raise UserError(
                f"a budget of {question.budget} tokens leaves no room for a thought and an answer beside the "
                f"{len(opener)} tokens of source.opener: raise --max-tokens or take a shorter opener"
            )
        answer = min(self.answer_tokens, left // 2)
        return Plan(context.encode(self.mark), opener, answer, left - answer)

    async def think(self, question: Question, context: Context, plan: Plan, number: int) -> Response:
        """A thought, up to its mark, its end or the room that there is."""
        [thought] = await context.sampler.generate(
            question.tokens, max_tokens=plan.room, temperature=self.temperature, key=(*question.key, number),
            stop=[plan.mark], keep=True,
        )  # fmt: skip
        thought.thought = number
        return thought

    async def answer(
        self, question: Question, context: Context, plan: Plan, thought: Response, cut: int, n: int, key: Sequence[int],
        trained: bool,
    ) -> list[Response]:  # fmt: skip
        """``n`` answers to the first ``cut`` tokens of a thought, whose tokens are ``trained`` on again or only read.

        The opener stands between them, unless the thought has come to its mark there.
        """
        closed = thought.stopped and cut == len(thought.tokens)
        opener = () if closed else plan.opener
        drawn = await context.sampler.generate(
            (*question.tokens, *thought.tokens[:cut], *opener), n=n, max_tokens=plan.answer,
            temperature=self.temperature, key=(*question.key, thought.thought, *key), keep=True,
        )  # fmt: skip
        return [joined(thought, cut, opener, end, trained) for end in drawn]


def joined(thought: Response, cut: int, opener: Sequence[int], end: Response, trained: bool) -> Response:
    """The beginning of a thought, text that the policy did not write, and what it wrote after it, as one response."""
    silent, version = [0.0] * len(opener), end.versions[:1] * len(opener)
    return Response(
        [*thought.tokens[:cut], *opener, *end.tokens],
        [*thought.logp[:cut], *silent, *end.logp],
        [*thought.entropy[:cut], *silent, *end.entropy],
        end.stop_reason,
        support=[*thought.supports[:cut], *[()] * len(opener), *end.support],
        versions=[*thought.versions[:cut], *version, *end.versions],
        routes=end.routes,
        own=[trained] * cut + [False] * len(opener) + [True] * len(end.tokens),
        temperature=end.temperature,
        thought=thought.thought,
        cut=cut,
    )


@part
class EarlyExits(Exits):
    """Thoughts to their end, and answers that are forced at several places of each.

    Row 0 of a thought is the whole response (``origin`` 0); then come ``answers`` answers from each of ``exits`` cuts,
    in the order of their places (``origin`` 1 and up). ``size`` counts all rows, (1 + exits * answers) for each thought.
    Sources: S-GRPO, arXiv:2505.07686; AnytimeReasoner, arXiv:2505.13438. Our reading: places are different ones where
    the thought is long enough; a thought that is over before a cut is answered from its end.
    """

    asks: ClassVar[frozenset[str]] = frozenset({"stop sequences", "resume"})

    size: Count = 9
    """Rows of one prompt."""
    exits: Count = 8
    """Cuts of each thought."""
    answers: Count = 1
    """Answers from each cut."""
    fractions: tuple[Fraction, ...] | None = None
    """Where the cuts lie, as shares of the longest thought that is cut; None draws places of the thought evenly."""
    once: bool = False
    """Train the tokens of a thought in row 0 alone, and its answer only in the rows of the cuts."""

    def __post_init__(self) -> None:
        rows = 1 + self.exits * self.answers
        if self.size % rows:
            raise ValueError(f"size is {self.size}, no multiple of the {rows} rows (1 + exits * answers) of a thought")
        if self.fractions is not None and list(self.fractions) != sorted(self.fractions):
            raise ValueError("fractions are not in rising order")
        if self.fractions is not None and len(self.fractions) != self.exits:
            raise ValueError(f"{self.exits} exits, but {len(self.fractions)} fractions")

    async def draw(self, question: Question, context: Context) -> list[Response]:
        thoughts = self.size // (1 + self.exits * self.answers)
        drawn = await asyncio.gather(*(self._rows(question, context, k) for k in range(thoughts)))
        return [row for rows in drawn for row in rows]

    async def _rows(self, question: Question, context: Context, number: int) -> list[Response]:
        plan = self.plan(question, context)
        thought = await self.think(question, context, plan, number)
        cuts = self.cuts(thought, plan, random.Random(repr((question.key, number))))
        forced = (
            self.answer(question, context, plan, thought, cut, self.answers, (i,), trained=not self.once)
            for i, cut in enumerate(cuts)
        )
        whole, *ends = await asyncio.gather(self._whole(question, context, thought), *forced)
        for i, rows in enumerate(ends):
            for row in rows:
                row.origin = i + 1
        return [*whole, *(row for rows in ends for row in rows)]

    def cuts(self, thought: Response, plan: Plan, draw: random.Random) -> list[int]:
        """How many tokens of a thought stand before each cut, in rising order."""
        whole = len(thought.tokens) - int(thought.finished)
        inner = whole - len(plan.mark) if thought.stopped else whole
        if self.fractions is not None:
            wanted = [math.ceil(f * plan.room) for f in self.fractions]
            return [cut if cut <= inner else whole for cut in wanted]
        if inner < 1:
            return [whole] * self.exits
        places = range(1, inner + 1)
        return sorted(draw.sample(places, self.exits) if inner >= self.exits else draw.choices(places, k=self.exits))

    async def _whole(self, question: Question, context: Context, thought: Response) -> list[Response]:
        """The thought with the answer that it comes to by itself."""
        response, cut = copy.deepcopy(thought), len(thought.tokens)
        if not response.finished:
            await context.sampler.generate(
                question.tokens, max_tokens=question.budget - cut, temperature=self.temperature,
                key=(*question.key, thought.thought, -1), resume=response,
            )  # fmt: skip
        if self.once:
            response.own = [i < cut for i in range(len(response.tokens))]
        return [response]
